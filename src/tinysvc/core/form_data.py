"""The values of a form: text fields, and files that are kept in memory or on disk.

Temporary files have no name in the file system, from their creation on: nothing of them remains, even after a crash.
"""

from __future__ import annotations

import codecs
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from .errors import HTTPError
from .units import KiB, MiB

SPOOL_SIZE = 1 * MiB
"""Bytes of all files of a form that stay in memory; more go to disk (per file: Starlette 1 MiB, Django 2.5 MiB)."""

FLUSH_SIZE = 256 * KiB
"""Bytes that wait for the disk before a thread writes them."""

MAX_PARTS = 10_000
"""Fields and files of a form; more is a 413 (Tomcat: 10,000). Empty parts are a cheap attack."""


class UploadFile:
    """A file of a form. Its content stays in memory, or in a temporary file, until no code refers to the UploadFile.

    Attributes:
        name (str): Name of the field.
        filename (str): File name that the client sent, without folders; "" if it sent none. Do not trust it.
        content_type (str): Content type that the client sent. Do not trust it.
        size (int): Length in bytes.
        file: The content as a binary file, open for reading, at its beginning.

    Example:
        ```python
        from tinysvc import UploadFile, io_route

        @io_route("/photos", methods=["POST"])
        async def add(photo: UploadFile) -> dict:
            return {"name": photo.filename, "begins_with": photo.read(4).hex()}
        ```
    """

    __slots__ = ("content_type", "file", "filename", "name", "size")

    def __init__(self, name: str, filename: str, content_type: str) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        self.file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile()  # noqa: SIM115 - closed by __del__

    @property
    def is_json(self) -> bool:
        """Whether the content type that the client sent is JSON."""
        return is_json_type(self.content_type)

    def read(self, size: int = -1) -> bytes:
        """Read from the content.

        Args:
            size: Bytes to read, at most. Negative: all that are left.

        Returns:
            The bytes; empty at the end.
        """
        return self.file.read(size)

    def save(self, path: str | Path) -> None:
        """Write the whole content to a file. An existing file is overwritten.

        Args:
            path: Path of the new file. Do not make it from `filename`.
        """
        self.file.seek(0)
        with open(path, "wb") as file:
            shutil.copyfileobj(self.file, file, FLUSH_SIZE)

    def close(self) -> None:
        """Discard the content now."""
        self.file.close()

    def __del__(self) -> None:
        file = getattr(self, "file", None)  # none, if it could not be made
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        return f"<UploadFile {self.name}: {self.filename!r}, {self.size} bytes of {self.content_type}>"


class JsonText(str):
    """The text of a part whose content type is JSON."""

    __slots__ = ()


def is_json_type(content_type: str) -> bool:
    """Whether a content type is JSON: `application/json` or one with the suffix +json (RFC 6839, 3.1)."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


@dataclass(frozen=True, slots=True)
class FormData:
    """The fields and files of a form, in the order in which they were sent: the result of `request.form()`.

    Attributes:
        fields: Values of the text fields by name.
        files: Files by the name of their field.

    Example:
        ```python
        from tinysvc import Request, io_route

        @io_route("/contact", methods=["POST"])
        async def contact(request: Request) -> str:
            form = await request.form()
            return f"thank you, {form.get('name', 'stranger')}"
        ```
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[UploadFile]] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the last file, or the last value, of a name.

        Args:
            name: Name of the field.
            default: Result if the form has no such field.

        Returns:
            An `UploadFile`, a str, or the default.
        """
        values = self.files.get(name) or self.fields.get(name)
        return values[-1] if values else default


class Spool:
    """Stores the contents of files: in memory, and beyond SPOOL_SIZE (all files together) on disk."""

    def __init__(self) -> None:
        self.unwritten = 0
        """Bytes that wait for `flush`."""
        self._size = 0
        self._uploads: list[UploadFile] = []
        self._pending: list[tuple[SpooledTemporaryFile[bytes], bytes]] = []
        self._closed = False

    def write(self, upload: UploadFile, data: bytes) -> None:
        upload.size += len(data)
        self._size += len(data)
        if self._size <= SPOOL_SIZE:
            upload.file.write(data)
        else:
            self._pending.append((upload.file, data))
            self.unwritten += len(data)

    def open(self, upload: UploadFile) -> None:
        self._uploads.append(upload)

    def close(self) -> None:
        self._closed = True
        for upload in self._uploads:
            upload.close()

    def flush(self) -> None:
        """Write the pending bytes to disk. This blocks: the event loop calls it in a thread."""
        pending, self._pending = self._pending, []
        self.unwritten = 0
        try:
            for file, data in pending:
                file.rollover()  # to disk, if the file is still in memory
                file.write(data)
        finally:
            if self._closed:  # closed during the write, after a disconnect: close also the files opened since then
                self.close()


# What both kinds of forms share


def content_type_parameters(content_type: str) -> tuple[str, dict[str, str]]:
    """The media type and its parameters, in lower case. One pass over the text, even if it is malformed."""
    kind, *pairs = content_type.split(";")
    parameters = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        parameters[name.strip(" \t").lower()] = value.strip(" \t").removeprefix('"').removesuffix('"')
    return kind.strip(" \t").lower(), parameters


_CODECS = re.compile(r"ascii|utf-8(-sig)?|iso8859-\d+|cp125\d|koi8-[ru]|shift_jis|euc_(jp|kr)|gbk|gb2312|gb18030|big5")
"""The charsets of browsers (WHATWG Encoding), by Python's names. Other codecs are slow, or do not decode text."""


def codec_of(charset: str, part: str) -> str:
    """Python's name of a declared charset. ASCII becomes UTF-8, its superset. HTTPError 400 for an unknown one."""
    try:
        name = codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        name = ""
    if not _CODECS.fullmatch(name):
        raise malformed_form(f"the {part} has the charset {charset[:100]!r}, which is not supported; send UTF-8")
    return "utf-8" if name == "ascii" else name


def malformed_form(fault: str) -> HTTPError:
    return HTTPError(400, f"The form is malformed: {fault}.")
