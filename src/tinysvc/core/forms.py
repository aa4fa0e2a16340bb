"""Forms and uploads: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578).

    bytes, as they come ──> FormParser.feed ──> fields as text; files in memory, and above SPOOL_SIZE on disk

The parser does no I/O but for what `flush` writes to temporary files: the event loop has a thread do that, a worker
does it itself. Those files have no name from their birth, so that nothing of them is left, whatever happens.

The grammar of multipart is the `multipart` library's. Limits hold while the form comes in; the size of the whole is the
body's own limit.
"""

from __future__ import annotations

import codecs
import re
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any
from urllib.parse import unquote_to_bytes

from .errors import HTTPError
from .query import CONTROL_CHARACTERS, parse_query

KiB, MiB = 1024, 1024 * 1024

SPOOL_SIZE = 1 * MiB
"""Bytes of all files of a form that stay in memory; more go to disk (Starlette: 1 MiB, Django: 2.5 MiB, of each)."""

FLUSH_SIZE = 256 * KiB
"""Bytes that wait for the disk before a thread is sent there."""

MAX_PARTS = 10_000
"""Fields and files of a form (Tomcat: 10,000); more is a 413. Empty parts are a cheap attack."""

MAX_PREAMBLE = 4 * KiB
"""Bytes before the first boundary, which are skipped (RFC 2046, 5.1.1)."""

MAX_PART_HEADER = 4 * KiB
"""Bytes of one header line of a part: a name, and a file's name."""

MAX_PART_HEADERS = 8
"""RFC 7578 knows three."""

MAX_BOUNDARY = 70
"""Characters of the line between the parts (RFC 2046, 5.1.1)."""

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


class UploadFile:
    """A file of a form. Its content stays in memory, or in a temporary file, until no code refers to the UploadFile.

    Attributes:
        name: Name of the field.
        filename: File name that the client sent, without folders; "" if it sent none. Do not trust it.
        content_type: Content type that the client sent. Do not trust it.
        size: Length in bytes.
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
    """The text of a part that says it is a JSON document."""

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


class _Spool:
    """Where the contents of files go: to memory, and, beyond SPOOL_SIZE in all, to disk when `flush` is called."""

    def __init__(self) -> None:
        self.unwritten = 0
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
        pending, self._pending = self._pending, []
        self.unwritten = 0
        try:
            for file, data in pending:
                file.rollover()  # to disk, if it is not there
                file.write(data)
        finally:
            if self._closed:  # meanwhile, as the client has gone: what this thread has opened since is its to close
                self.close()


class FormParser:
    """Reads a form piece by piece. HTTPError 415 if the content type is no form's.

    As a context manager it closes the files of a form that fails: they do not wait for the error to be forgotten.
    """

    def __init__(self, content_type: str) -> None:
        self._form = FormData()
        self._spool = _Spool()
        kind, parameters = _parameters(content_type)
        self._reader: _Multipart | _Urlencoded
        if kind == MULTIPART:
            self._reader = _Multipart(self._form, self._spool, parameters)
        elif kind == URLENCODED:
            self._reader = _Urlencoded(self._form, _codec(parameters.get("charset", ""), "form"))
        else:
            what = f"not {kind[:100]!r}" if kind else "but it does not say what it is"
            raise HTTPError(415, f"The body must be a form, {MULTIPART} or {URLENCODED}, {what}.")

    def __enter__(self) -> FormParser:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self._spool.close()

    @property
    def held(self) -> int:
        """Bytes of fields, which stay in memory."""
        return self._reader.held

    @property
    def unwritten(self) -> int:
        """Bytes that wait for `flush`."""
        return self._spool.unwritten

    def feed(self, data: bytes) -> None:
        """The next piece. HTTPError 400 for what is malformed, 413 for what is over a limit."""
        self._reader.feed(data)

    def flush(self) -> None:
        """Write to disk what belongs there."""
        self._spool.flush()

    def finish(self) -> FormData:
        """The form, when all has come; HTTPError 400 if something is missing."""
        self._reader.finish()
        self.flush()
        for files in self._form.files.values():
            for upload in files:
                upload.file.seek(0)
        return self._form


async def read_form(
    content_type: str, pieces: AsyncIterator[bytes], keep: Callable[[], object] | None = None
) -> FormData:
    """A form, on the event loop. `keep` is called when its fields are big: what comes then counts as held."""
    from anyio.to_thread import run_sync

    with FormParser(content_type) as parser:
        async for piece in pieces:
            parser.feed(piece)
            if keep and parser.held > SPOOL_SIZE:
                keep()
            if parser.unwritten >= FLUSH_SIZE:
                await run_sync(parser.flush)
        is_quick = not parser.unwritten and parser.held <= SPOOL_SIZE
        return parser.finish() if is_quick else await run_sync(parser.finish)


def parse_form(content_type: str, body: bytes | memoryview) -> FormData:
    """A form that is here as a whole, in a worker."""
    with FormParser(content_type) as parser:
        for start in range(0, len(body), FLUSH_SIZE):
            parser.feed(bytes(body[start : start + FLUSH_SIZE]))
            parser.flush()
        return parser.finish()


def _parameters(content_type: str) -> tuple[str, dict[str, str]]:
    """A media type and its parameters, names in lower case; in one pass, whatever stands there."""
    kind, *pairs = content_type.split(";")
    parameters = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        parameters[name.strip(" \t").lower()] = value.strip(" \t").removeprefix('"').removesuffix('"')
    return kind.strip(" \t").lower(), parameters


_CODECS = re.compile(r"ascii|utf-8(-sig)?|iso8859-\d+|cp125\d|koi8-[ru]|shift_jis|euc_(jp|kr)|gbk|gb2312|gb18030|big5")
"""Those that browsers know (WHATWG Encoding), by Python's names; others are slow, or are none of text."""


def _codec(charset: str, what: str) -> str:
    """Python's name of a declared charset; ASCII is read as UTF-8, which holds it."""
    try:
        name = codecs.lookup(charset or "utf-8").name
    except (LookupError, ValueError):
        name = ""
    if not _CODECS.fullmatch(name):
        raise _malformed(f"the {what} has the charset {charset[:100]!r}, which is not supported; send UTF-8")
    return "utf-8" if name == "ascii" else name


class _Urlencoded:
    def __init__(self, form: FormData, codec: str) -> None:
        self._form = form
        self._codec = codec
        self._pieces: list[bytes] = []
        self.held = 0

    def feed(self, data: bytes) -> None:
        self.held += len(data)
        self._pieces.append(data)

    def finish(self) -> None:
        try:
            text = b"".join(self._pieces).decode(self._codec)
        except UnicodeDecodeError as error:
            name = "UTF-8" if self._codec == "utf-8" else self._codec
            raise HTTPError(400, f"The form is not {name}: {error.reason} at byte {error.start}.") from None
        self._form.fields.update(parse_query(text.removeprefix("\ufeff"), "form", MAX_PARTS, self._codec))


# Multipart


def _boundary(parameters: dict[str, str]) -> bytes:
    boundary = parameters.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise HTTPError(
            400, f"The Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters, not {boundary[:100]!r}."
        )
    return boundary.encode()


class _Part:
    """One part while it comes: a file, or a field. `charset` is that of a field that does not say its own."""

    def __init__(self, segment: Any, charset: str) -> None:
        headers = {name: _header_text(value, charset) for name, value in segment.headerlist}
        for header, value in headers.items():
            if CONTROL_CHARACTERS.search(value):
                raise _malformed(f"the header {header} of a part holds a control character")
        if not segment.name:
            raise _malformed("a part has no name")
        name, filename = _header_text(segment.name, charset), segment.filename
        if filename is not None:
            filename = _header_text(filename, charset)
        if "filename*" in headers["Content-Disposition"].lower():
            filename = _extended_name(headers["Content-Disposition"], filename or "")
        if CONTROL_CHARACTERS.search(name + (filename or "")):
            raise _malformed("the name of a part, or of its file, holds a control character")
        encoding = headers.get("Content-Transfer-Encoding", "binary").strip().lower()
        if encoding not in ("binary", "8bit", "7bit"):
            raise _malformed(f"a part has the Content-Transfer-Encoding {encoding[:100]!r}, which no form has any more")
        self.name = name
        self.pieces: list[bytes] = []
        self.upload: UploadFile | None = None
        content_type = headers.get("Content-Type", "").strip()
        self._is_json = is_json_type(content_type)
        if filename is not None:
            self.upload = UploadFile(name, _basename(filename), content_type or "application/octet-stream")
        else:
            given = _parameters(content_type)[1].get("charset", "utf-8" if self._is_json else charset)
            self._codec = _codec(given, f"field {name!r}")

    def text(self) -> str:
        try:
            text = b"".join(self.pieces).decode(self._codec)
        except UnicodeDecodeError as error:
            codec = "UTF-8" if self._codec == "utf-8" else self._codec
            raise _malformed(f"the field {self.name!r} is not {codec}: {error.reason} at byte {error.start}") from None
        return JsonText(text.removeprefix("\ufeff")) if self._is_json else text


def _header_text(latin: str, charset: str) -> str:
    """A header, which the library has read byte by byte: UTF-8, as browsers write it, or the form's charset."""
    octets = latin.encode("latin-1")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode(_codec(charset, "form") if charset not in ("", "utf-8") else "cp1252", "replace")


def _extended_name(disposition: str, otherwise: str) -> str:
    """The file's name as `filename*` has it (RFC 8187), which goes before `filename` (RFC 6266, 4.3)."""
    for parameter in _PARAMETER.findall(disposition):
        key, _, value = parameter.partition("=")
        if key.strip(" \t").lower() == "filename*":
            charset, _, rest = value.strip(' \t"').partition("'")
            encoded = rest.partition("'")[2]  # behind the language
            try:
                return unquote_to_bytes(encoded).decode(_codec(charset, "file's name"))
            except UnicodeDecodeError:
                return otherwise
    return otherwise


_PARAMETER = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|[^;"])+""")


def missing_library() -> str:
    """Why no multipart form can be read here; "" if one can."""
    try:
        import multipart  # noqa: F401
    except ImportError as error:
        return f"uploads need the multipart library ({error}); pip install 'tinysvc[forms]'"
    return ""


class _Multipart:
    """Makes fields and files of what the library tells: a part, its pieces, None at its end."""

    def __init__(self, form: FormData, spool: _Spool, parameters: dict[str, str]) -> None:
        if missing := missing_library():
            raise RuntimeError(missing)
        from multipart import MultipartError, ParserLimitReached, PushMultipartParser

        boundary = _boundary(parameters)
        self._charset = parameters.get("charset", "utf-8")
        _codec(self._charset, "form")
        self._limit_reached, self._malformed = ParserLimitReached, MultipartError
        self._push = PushMultipartParser(
            boundary,
            max_header_size=MAX_PART_HEADER,
            max_header_count=MAX_PART_HEADERS,
            max_segment_count=MAX_PARTS,
            header_charset="latin-1",
        )
        self._form, self._spool = form, spool
        self._first_line = b"\r\n--" + boundary
        self._beginning: bytes | None = b"\r\n"  # until the first boundary has come
        self._has_preamble = False  # and no part yet
        self._part: _Part | None = None
        self.held = 0

    def feed(self, data: bytes) -> None:
        if self._beginning is not None:
            data = self._beginning + data
            start = data.find(self._first_line, 0, MAX_PREAMBLE + len(self._first_line))
            if start < 0:
                if len(data) >= MAX_PREAMBLE + len(self._first_line):
                    raise _malformed(f"no boundary stands in its first {MAX_PREAMBLE} bytes")
                self._beginning = data
                return
            self._beginning, data = None, data[start + 2 :]
            self._has_preamble = start > 0
        try:
            for event in self._push.parse(data):
                self._take(event)
        except self._limit_reached as error:
            most = f"{MAX_PARTS} parts, or {MAX_PART_HEADERS} headers of {MAX_PART_HEADER} bytes in one"
            raise HTTPError(413, f"The form has more than {most}: {error}.") from None
        except self._malformed as error:
            raise _malformed(str(error)) from None

    def finish(self) -> None:
        if self._beginning is not None or self._has_preamble:  # parts between other boundaries are no preamble
            raise _malformed("the boundary of its Content-Type begins no part")
        try:
            self._push.close()
        except self._malformed as error:
            raise _malformed(str(error)) from None

    def _take(self, event: Any) -> None:
        part = self._part
        if part is None:
            self._part = part = _Part(event, self._charset)
            self._has_preamble = False
            if part.upload is not None:
                self._spool.open(part.upload)
        elif event is None:
            self._part = None
            self._end(part)
        elif part.upload is not None:
            self._spool.write(part.upload, bytes(event))
        else:
            self.held += len(event)
            part.pieces.append(bytes(event))

    def _end(self, part: _Part) -> None:
        upload = part.upload
        if upload is None:
            text = part.text()
            self._form.fields.setdefault(part.name, []).append(text)
            if part.name == "_charset_":  # of the fields behind it (RFC 7578, 4.6)
                self._charset = text
        elif upload.size or upload.filename:  # else a file input in which nothing was chosen
            self._form.files.setdefault(part.name, []).append(upload)


def _malformed(what: str) -> HTTPError:
    return HTTPError(400, f"The form is malformed: {what}.")


def _basename(filename: str) -> str:
    """The last part of a path of any system: a client's folders are not ours."""
    name = filename.replace("\\", "/").rpartition("/")[2].strip()
    return "" if name in (".", "..") else name
