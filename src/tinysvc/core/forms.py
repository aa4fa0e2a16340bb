"""Forms and uploads: `application/x-www-form-urlencoded` and `multipart/form-data` (RFC 7578).

    pieces of the body ──> FormParser.feed ──> fields as text; files in memory, above SPOOL_SIZE on disk

The parser itself does no I/O. `flush` writes to temporary files: the event loop calls it in a thread, a worker calls it
directly. Limits hold while the form arrives; the size of the whole form is limited by `max_body_size`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from .errors import HTTPError
from .form_data import FLUSH_SIZE, MAX_PARTS, SPOOL_SIZE, FormData, Spool, codec_of, content_type_parameters
from .multipart_reader import MultipartReader
from .query import parse_query

URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


class FormParser:
    """Reads a form piece by piece. HTTPError 415 if the content type is not that of a form.

    As a context manager it closes the files of a form that fails: they do not wait for the garbage collector.
    """

    def __init__(self, content_type: str) -> None:
        self._form = FormData()
        self._spool = Spool()
        kind, parameters = content_type_parameters(content_type)
        self._reader: MultipartReader | _UrlencodedReader
        if kind == MULTIPART:
            self._reader = MultipartReader(self._form, self._spool, parameters)
        elif kind == URLENCODED:
            self._reader = _UrlencodedReader(self._form, codec_of(parameters.get("charset", ""), "form"))
        else:
            came = f"not {kind[:100]!r}" if kind else "but the request has no Content-Type"
            raise HTTPError(415, f"The body must be a form, {MULTIPART} or {URLENCODED}, {came}.")

    def __enter__(self) -> FormParser:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self._spool.close()

    @property
    def held(self) -> int:
        """Bytes of text fields, which stay in memory."""
        return self._reader.held

    @property
    def unwritten(self) -> int:
        """Bytes that wait for `flush`."""
        return self._spool.unwritten

    def feed(self, data: bytes) -> None:
        """Read the next piece. HTTPError 400 for a malformed form, 413 for one over a limit."""
        self._reader.feed(data)

    def flush(self) -> None:
        """Write the contents of big files to disk. This blocks."""
        self._spool.flush()

    def finish(self) -> FormData:
        """The complete form. HTTPError 400 if a part of it is missing."""
        self._reader.finish()
        self.flush()
        for files in self._form.files.values():
            for upload in files:
                upload.file.seek(0)
        return self._form


async def read_form(
    content_type: str, pieces: AsyncIterator[bytes], keep: Callable[[], object] | None = None
) -> FormData:
    """Read a form on the event loop. `keep` is called when its fields are big: later pieces count as held memory."""
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
    """Read a form whose body is complete, in a worker."""
    with FormParser(content_type) as parser:
        for start in range(0, len(body), FLUSH_SIZE):
            parser.feed(bytes(body[start : start + FLUSH_SIZE]))
            parser.flush()
        return parser.finish()


class _UrlencodedReader:
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
