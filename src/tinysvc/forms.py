"""Forms and uploads: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578).

    bytes, as they come ──> FormParser.feed ──> fields as text; files in memory, and above SPOOL_SIZE on disk

The parser does no I/O but for what `flush` writes to temporary files: the event loop has a thread do that, a worker
does it itself. Those files have no name from their birth, so that nothing of them is left, whatever happens.

The grammar of multipart is the `multipart` library's. Limits hold while the form comes in; the size of the whole is the
body's own limit.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from .errors import HTTPError
from .query import CONTROL, parse_query

KiB, MiB = 1024, 1024 * 1024

SPOOL_SIZE = 1 * MiB
"""Bytes of all files of a form that stay in memory; more go to disk (Starlette: 1 MiB, Django: 2.5 MiB, of each)."""

FLUSH_SIZE = 256 * KiB
"""Bytes that wait for the disk before a thread is sent there."""

MAX_PARTS = 1000
"""Fields and files of a form, as many as a query may have; more is a 413. Empty parts are a cheap attack."""

MAX_FIELDS_SIZE = 1 * MiB
"""Bytes of all fields that are no files, which stay in memory (Django: 2.5 MiB)."""

MAX_PART_HEADER = 4 * KiB
"""Bytes of one header line of a part: a name, and a file's name."""

MAX_PART_HEADERS = 8
"""RFC 7578 knows three."""

MAX_BOUNDARY = 70
"""Characters of the line between the parts (RFC 2046, 5.1.1)."""

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


class UploadFile:
    """A file of a form: `file` is its content, open for reading, at its beginning; `size` in bytes.

    `filename` is what the client calls it, without any folder, "" if it has no name; `content_type` is what the client
    says it is. Neither can be trusted. The content is gone when nobody holds the UploadFile any more.
    """

    __slots__ = ("content_type", "file", "filename", "name", "size")

    def __init__(self, name: str, filename: str, content_type: str) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        self.file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile()  # noqa: SIM115 - closed by __del__

    def read(self, size: int = -1) -> bytes:
        """The next `size` bytes; all that are left if it is negative."""
        return self.file.read(size)

    def save(self, path: str | Path) -> None:
        """Write the content to a file of this path, whatever is there."""
        self.file.seek(0)
        with open(path, "wb") as file:
            shutil.copyfileobj(self.file, file, FLUSH_SIZE)

    def close(self) -> None:
        self.file.close()

    def __del__(self) -> None:
        file = getattr(self, "file", None)  # none, if it could not be made
        if file is not None:
            file.close()

    def __repr__(self) -> str:
        return f"<UploadFile {self.name}: {self.filename!r}, {self.size} bytes of {self.content_type}>"


@dataclass(frozen=True, slots=True)
class FormData:
    """A form: its text fields and its files, by their names, in the order in which they came."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[UploadFile]] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The last value of the field, or the last file, of this name."""
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
            self._reader = _Multipart(self._form, self._spool, _boundary(parameters))
        elif kind == URLENCODED:
            self._reader = _Urlencoded(self._form)
        else:
            what = f"not {kind[:100]!r}" if kind else "but it does not say what it is"
            raise HTTPError(415, f"The body must be a form, {MULTIPART} or {URLENCODED}, {what}.")

    def __enter__(self) -> FormParser:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self._spool.close()

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


async def read_form(content_type: str, pieces: AsyncIterator[bytes]) -> FormData:
    """A form, on the event loop."""
    from anyio.to_thread import run_sync

    with FormParser(content_type) as parser:
        async for piece in pieces:
            parser.feed(piece)
            if parser.unwritten >= FLUSH_SIZE:
                await run_sync(parser.flush)
        return parser.finish() if not parser.unwritten else await run_sync(parser.finish)


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


class _Urlencoded:
    def __init__(self, form: FormData) -> None:
        self._form = form
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_FIELDS_SIZE:
            raise _too_much(f"{MAX_FIELDS_SIZE} bytes of fields")
        self._pieces.append(data)

    def finish(self) -> None:
        try:
            text = b"".join(self._pieces).decode()
        except UnicodeDecodeError as error:
            raise HTTPError(400, f"The form is not UTF-8: {error.reason} at byte {error.start}.") from None
        self._form.fields.update(parse_query(text, "form"))


def _too_much(what: str) -> HTTPError:
    return HTTPError(413, f"The form has more than {what}.")


# Multipart


def _boundary(parameters: dict[str, str]) -> bytes:
    boundary = parameters.get("boundary", "")
    if not 0 < len(boundary) <= MAX_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
        raise HTTPError(
            400, f"The Content-Type must name a boundary of 1 to {MAX_BOUNDARY} characters, not {boundary[:100]!r}."
        )
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise HTTPError(400, f"The form must be UTF-8, not {parameters['charset'][:100]!r}.")
    return boundary.encode()


class _Part:
    """One part while it comes: a file, or a field."""

    def __init__(self, segment: Any) -> None:
        for name, value in segment.headerlist:
            if CONTROL.search(value):
                raise _malformed(f"the header {name} of a part holds a control character")
        if not segment.name:
            raise _malformed("a part has no name")
        if CONTROL.search(segment.name + (segment.filename or "")):
            raise _malformed("the name of a part, or of its file, holds a control character")
        encoding = segment.header("Content-Transfer-Encoding", "binary").lower()
        if encoding not in ("binary", "8bit", "7bit"):
            raise _malformed(f"a part has the Content-Transfer-Encoding {encoding[:100]!r}, which no form has any more")
        self.name: str = segment.name
        self.pieces: list[bytes] = []
        self.upload: UploadFile | None = None
        content_type = segment.header("Content-Type", "")
        charset = _parameters(content_type)[1].get("charset", "utf-8")
        if segment.filename is not None:
            self.upload = UploadFile(self.name, _basename(segment.filename), content_type or "application/octet-stream")
        elif charset.lower() not in ("utf-8", "utf8", "us-ascii"):
            raise _malformed(f"the field {self.name!r} must be UTF-8, not {charset[:100]!r}")

    def text(self) -> str:
        try:
            return b"".join(self.pieces).decode()
        except UnicodeDecodeError as error:
            raise _malformed(f"the field {self.name!r} is not UTF-8: {error.reason} at byte {error.start}") from None


def missing_library() -> str:
    """Why no multipart form can be read here; "" if one can."""
    try:
        import multipart  # noqa: F401
    except ImportError as error:
        return f"uploads need the multipart library ({error}); pip install 'tinysvc[forms]'"
    return ""


class _Multipart:
    """Makes fields and files of what the library tells: a part, its pieces, None at its end."""

    def __init__(self, form: FormData, spool: _Spool, boundary: bytes) -> None:
        if missing := missing_library():
            raise RuntimeError(missing)
        from multipart import MultipartError, ParserLimitReached, PushMultipartParser

        self._limit_reached, self._malformed = ParserLimitReached, MultipartError
        self._push = PushMultipartParser(
            boundary, max_header_size=MAX_PART_HEADER, max_header_count=MAX_PART_HEADERS, max_segment_count=MAX_PARTS
        )
        self._form, self._spool = form, spool
        self._first_line = b"--" + boundary
        self._beginning: bytes | None = b""  # until enough has come to tell that it is the boundary
        self._part: _Part | None = None
        self._fields_size = 0

    def feed(self, data: bytes) -> None:
        if self._beginning is not None:
            data = self._beginning + data
            first = data.removeprefix(b"\r\n")
            if not self._first_line.startswith(first[: len(self._first_line)]) and data != b"\r":
                raise _malformed("it does not begin with the boundary")
            if len(first) < len(self._first_line):
                self._beginning = data
                return
            self._beginning = None
        try:
            for event in self._push.parse(data):
                self._take(event)
        except self._limit_reached as error:
            most = f"{MAX_PARTS} parts, or {MAX_PART_HEADERS} headers of {MAX_PART_HEADER} bytes in one"
            raise HTTPError(413, f"The form has more than {most}: {error}.") from None
        except self._malformed as error:
            raise _malformed(str(error)) from None

    def finish(self) -> None:
        try:
            self._push.close()
        except self._malformed as error:
            raise _malformed(str(error)) from None

    def _take(self, event: Any) -> None:
        part = self._part
        if part is None:
            self._part = part = _Part(event)
            if part.upload is not None:
                self._spool.open(part.upload)
        elif event is None:
            self._part = None
            self._end(part)
        elif part.upload is not None:
            self._spool.write(part.upload, bytes(event))
        else:
            self._fields_size += len(event)
            if self._fields_size > MAX_FIELDS_SIZE:
                raise _too_much(f"{MAX_FIELDS_SIZE} bytes of fields that are no files")
            part.pieces.append(bytes(event))

    def _end(self, part: _Part) -> None:
        upload = part.upload
        if upload is None:
            self._form.fields.setdefault(part.name, []).append(part.text())
        elif upload.size or upload.filename:  # else a file input in which nothing was chosen
            self._form.files.setdefault(part.name, []).append(upload)


def _malformed(what: str) -> HTTPError:
    return HTTPError(400, f"The form is malformed: {what}.")


def _basename(filename: str) -> str:
    """The last part of a path of any system: a client's folders are not ours."""
    name = filename.replace("\\", "/").rpartition("/")[2].strip()
    return "" if name in (".", "..") else name
