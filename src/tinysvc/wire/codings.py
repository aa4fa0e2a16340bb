"""Content codings (RFC 9110, 8.4.1): gzip always, zstd and br if their library is installed. No I/O.

    choose_coding     Accept-Encoding and the offered codings -> the coding of the response
    compress          the content of a response -> the compressed content
    decompress_body   the body of a request -> the original body, up to a limit

Both work on complete bytes: in the worker for cpu routes, and for big bodies of io routes in a thread.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from ..core.errors import HTTPError
from ..core.headers import Headers
from ..core.requests import Request
from ..core.responses import Response, add_vary

MIN_SIZE = 1024
"""Bytes below which compression saves nothing: the response fits into one or two packets anyway (nginx: 20)."""

MAX_CODINGS = 1
"""Codings that a request body may have on top of each other. Only nested bombs use two."""

OUTPUT_SIZE = 64 * 1024
"""Bytes that are decompressed in one step: a bomb is detected before it fills the memory."""

COMPRESSIBLE_TYPES = re.compile(
    r"text/(?!event-stream)|application/(?:[^;]+\+)?(?:json|xml|javascript|x-ndjson|wasm)\b|image/(?:svg|bmp)"
)
"""Content types that are compressed. Images, video, fonts and archives are compressed already; events must not wait."""


class Compressor(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


class Coding(NamedTuple):
    """One coding: how to create its compressor and its decompressor."""

    compressor: Callable[[], Compressor]
    """Creates a compressor, at a level that costs a few ms for 100 KiB; a higher level saves little."""
    flush_block: Callable[[Compressor], bytes]
    """Flushes a compressor: the client can read everything that was written so far."""
    decompressor: Callable[[], Callable[[bytes, int], tuple[bytes, bytes, bool]]]
    """Creates a function: input, limit -> output of at most `limit` bytes, remaining input, whether it has ended."""


def _gzip() -> Coding:
    return Coding(lambda: zlib.compressobj(6, wbits=31), lambda p: p.flush(zlib.Z_SYNC_FLUSH), lambda: _inflater(31))


def _deflate() -> Coding:
    return Coding(lambda: zlib.compressobj(6), lambda p: p.flush(zlib.Z_SYNC_FLUSH), lambda: _inflater(15))


def _inflater(wbits: int) -> Callable[[bytes, int], tuple[bytes, bytes, bool]]:
    inflate = zlib.decompressobj(wbits)

    def step(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
        output = inflate.decompress(data, limit)
        if inflate.unused_data:
            raise ValueError("there are bytes after its end")
        return output, inflate.unconsumed_tail, inflate.eof

    return step


def _zstd() -> Coding:
    zstd: Any = _first_of("compression.zstd", "backports.zstd")  # Python's own from 3.14 on
    compressor = zstd.ZstdCompressor

    def decompressor() -> Callable[[bytes, int], tuple[bytes, bytes, bool]]:
        window = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MiB (RFC 9659)
        state = zstd.ZstdDecompressor(options=window)

        def step(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
            output = state.decompress(data, limit)
            if state.eof and state.unused_data:
                raise ValueError("there are bytes after its end")
            return output, b"", state.eof

        return step

    return Coding(lambda: compressor(level=3), lambda p: p.flush(compressor.FLUSH_BLOCK), decompressor)


class _BrotliCompressor:
    """A brotli compressor with the methods of zlib."""

    def __init__(self, brotli: Any) -> None:
        self._compressor = brotli.Compressor(quality=4)
        self.compress = self._compressor.process

    def flush(self, mode: int = 0, /) -> bytes:
        result: bytes = self._compressor.flush() if mode else self._compressor.finish()
        return result


def _br() -> Coding:
    brotli: Any = _first_of("brotli", "brotlicffi")

    def decompressor() -> Callable[[bytes, int], tuple[bytes, bytes, bool]]:
        state = brotli.Decompressor()

        def step(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
            output = state.process(data, output_buffer_limit=limit)
            return output, b"", state.is_finished()

        return step

    return Coding(lambda: _BrotliCompressor(brotli), lambda p: p.flush(1), decompressor)


def _first_of(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
    raise ImportError(f"none of {', '.join(names)} is installed")


_MAKERS = {"zstd": _zstd, "br": _br, "gzip": _gzip, "deflate": _deflate}
_ALIASES = {"x-gzip": "gzip"}  # RFC 9110, 8.4.1.3


@cache
def coding_of(name: str) -> Coding | None:
    """The coding of this name; None if it is unknown or its library is not installed."""
    try:
        return _MAKERS[name]()
    except (KeyError, ImportError):
        return None


@cache
def offered_codings() -> tuple[str, ...]:
    """Codings for responses, the best first. Not deflate: clients disagree about its format."""
    return tuple(name for name in ("zstd", "br", "gzip") if coding_of(name))


def choose_coding(accept: str, offers: Sequence[str]) -> str:
    """The best of `offers` for an Accept-Encoding (RFC 9110, 12.5.3), the first of equal ones; "" for no coding."""
    weights = weights_of(accept)
    others = weights.get("*", 0.0)
    best = max(offers, key=lambda name: weights.get(name, others), default="")
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else ""


def weights_of(accept: str) -> dict[str, float]:
    """The members of an Accept or Accept-Encoding header with their q. A malformed q counts as 0."""
    weights: dict[str, float] = {}
    for member in accept.lower().split(","):
        name, _, parameters = member.partition(";")
        if name := name.strip(" \t"):
            weights[_ALIASES.get(name, name)] = _weight(parameters)
    return weights


def _weight(parameters: str) -> float:
    if "q=" not in parameters:
        return 1.0
    q = parameters.rpartition("q=")[2].strip(" \t")
    return float(q) if _QVALUE.fullmatch(q) else 0.0


_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # RFC 9110, 12.4.2


# Responses


def begin_compression(request: Request, response: Response) -> Coding | None:
    """Choose the coding of a response, and set its headers; None to leave the content as it is.

    The content is bytes or a stream. A response that depends on Accept-Encoding gets a Vary.
    """
    if response.status == 304:
        _complete_not_modified(request, response)
    accept = request.headers.get("accept-encoding", "")
    size = getattr(response.content, "__len__", None)
    if (
        not COMPRESSIBLE_TYPES.match(response.content_type or "")
        or (size is not None and size() < MIN_SIZE)
        or response.status in (204, 206, 304)
        or any(name in ("content-encoding", "content-range") for name, _ in response.headers)
        or any(name == "cache-control" and "no-transform" in value for name, value in response.headers)
    ):
        return None
    add_vary(response, "accept-encoding")
    name = choose_coding(accept, offered_codings()) if accept else ""
    if not name:
        return None
    response.headers = [_weakened(*field) for field in response.headers if field[0] != "content-length"]
    response.headers.append(("content-encoding", name))
    return coding_of(name)


def _complete_not_modified(request: Request, response: Response) -> None:
    """Give a 304 the Vary and the entity-tag of its 200 (RFC 9110, 15.4.5), which had been compressed if the client
    has the weak tag. Vary may be one too many: the type and the size of the 200 are not known here.
    """
    tags = [value for name, value in response.headers if name == "etag"]
    if tags:
        add_vary(response, "accept-encoding")
        if f"W/{tags[0]}" in request.headers.get("if-none-match", ""):
            response.headers = [_weakened(*field) for field in response.headers]


def _weakened(name: str, value: str) -> tuple[str, str]:
    """The line of a compressed response: a strong entity-tag stands for other bytes (RFC 9110, 8.8.1)."""
    return (name, "W/" + value) if name == "etag" and not value.startswith("W/") else (name, value)


def compress(coding: Coding, content: bytes | memoryview) -> bytes:
    compressor = coding.compressor()
    return compressor.compress(content) + compressor.flush()  # type: ignore[arg-type]


def compress_pieces(coding: Coding, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Compress a stream. Each piece is flushed at once."""
    compressor = coding.compressor()
    for piece in pieces:
        yield compressor.compress(piece) + coding.flush_block(compressor)
    yield compressor.flush()


# Requests


def restore_tags(request: Request) -> None:
    """Make the entity-tags of If-Match strong again: the client has those of compressed responses, which were weakened.

    A weak tag never matches there (RFC 9110, 13.1.1), so a client could not change the resource that it has read.
    """
    if "W/" in request.headers.get("if-match", ""):
        request.headers = Headers(
            [(name, _TAG.sub(rb"\1", value) if name == b"if-match" else value) for name, value in request.headers.raw]
        )


_TAG = re.compile(rb'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')  # RFC 9110, 8.8.3


def decompress_body(header: str, body: bytes | memoryview, limit: int) -> bytes:
    """Undo the Content-Encoding of a request body. The result has at most `limit` bytes.

    HTTPError 415 for an unknown coding, 413 for a longer body, 400 for a malformed one.
    """
    names = [name.strip(" \t") for name in header.lower().split(",")]
    names = [_ALIASES.get(name, name) for name in names if name not in ("", "identity")]
    if not names:
        return bytes(body)
    coding = coding_of(names[0]) if len(names) <= MAX_CODINGS else None
    if coding is None:
        accepted = ", ".join((*offered_codings(), "deflate"))
        text = f"The body must have one Content-Encoding of {accepted}, or none, not {header[:100]!r}."
        raise HTTPError(415, text, headers=[("accept-encoding", accepted)])
    try:
        return b"".join(_decompressed(coding, bytes(body), limit))
    except HTTPError:
        raise
    except Exception as error:  # each library has its own errors
        raise HTTPError(400, f"The body is not {names[0]}: {str(error)[:200]}.") from None


def _decompressed(coding: Coding, data: bytes, limit: int) -> Iterator[bytes]:
    step = coding.decompressor()
    size, ended = 0, False
    while not ended:
        output, data, ended = step(data, OUTPUT_SIZE)
        size += len(output)
        if size > limit:
            raise HTTPError(413, f"The body has more than {limit} bytes after decompression.")
        yield output
        if not output and not data and not ended:
            raise ValueError("it was cut short")
