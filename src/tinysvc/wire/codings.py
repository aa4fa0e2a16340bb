"""Content codings (RFC 9110, 8.4.1): gzip always, zstd and br where their library is there. No I/O.

    choose      Accept-Encoding and what is on offer -> the coding to send
    pack        a response's content, compressed if that is worth it
    unpack      a request's body, as it was before the client compressed it, up to a limit

Both work on bytes that are here: for cpu routes a worker does it, and for io routes a thread where they are many.
"""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from ..core.errors import HTTPError
from ..core.requests import Request
from ..core.responses import Response, add_vary

MIN_SIZE = 1024
"""Bytes below which compression saves nothing: the whole answer fits into one or two packets anyway (nginx: 20)."""

MAX_CODINGS = 1
"""Codings a request body may have on top of each other. Nobody sends two; who nests bombs does."""

OUTPUT_SIZE = 64 * 1024
"""Bytes that are unpacked in one step, so that a bomb is noticed before it is in memory."""

COMPRESSIBLE_TYPES = re.compile(
    r"text/(?!event-stream)|application/(?:[^;]+\+)?(?:json|xml|javascript|x-ndjson|wasm)\b|image/(?:svg|bmp)"
)
"""What shrinks. Images, video, fonts and archives are compressed already; events must not wait in a buffer."""


class Compressor(Protocol):
    """Compresses a stream."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


class Coding(NamedTuple):
    """One coding: a new compressor, how it sends on what it has, and a new decompressor."""

    compressor: Callable[[], Compressor]
    """At a level that costs a few ms for 100 KiB; more saves little of a body made for one client."""
    flush_block: Callable[[Compressor], bytes]
    """What it still holds, so that a reader has all that was written."""
    decompressor: Callable[[], Callable[[bytes, int], tuple[bytes, bytes, bool]]]
    """A function of input and a limit -> output of at most so many bytes, input that is left, whether it has ended."""


def _gzip() -> Coding:
    return Coding(lambda: zlib.compressobj(6, wbits=31), lambda p: p.flush(zlib.Z_SYNC_FLUSH), lambda: _inflater(31))


def _deflate() -> Coding:
    return Coding(lambda: zlib.compressobj(6), lambda p: p.flush(zlib.Z_SYNC_FLUSH), lambda: _inflater(15))


def _inflater(wbits: int) -> Callable[[bytes, int], tuple[bytes, bytes, bool]]:
    inflate = zlib.decompressobj(wbits)

    def step(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
        output = inflate.decompress(data, limit)
        if inflate.unused_data:
            raise ValueError("there is something behind its end")
        return output, inflate.unconsumed_tail, inflate.eof

    return step


def _zstd() -> Coding:
    zstd: Any = _first_of("compression.zstd", "backports.zstd")  # Python's own from 3.14 on
    compressor = zstd.ZstdCompressor

    def decompressor() -> Callable[[bytes, int], tuple[bytes, bytes, bool]]:
        window = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MiB, as RFC 9659 has it
        state = zstd.ZstdDecompressor(options=window)

        def step(data: bytes, limit: int) -> tuple[bytes, bytes, bool]:
            output = state.decompress(data, limit)
            if state.eof and state.unused_data:
                raise ValueError("there is something behind its end")
            return output, b"", state.eof

        return step

    return Coding(lambda: compressor(level=3), lambda p: p.flush(compressor.FLUSH_BLOCK), decompressor)


class _BrotliCompressor:
    """With the methods of the others."""

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
    """None if it is unknown, or its library is not installed."""
    try:
        return _MAKERS[name]()
    except (KeyError, ImportError):
        return None


@cache
def offered_codings() -> tuple[str, ...]:
    """What answers can be compressed with, the best first. Not deflate: clients disagree about what it is."""
    return tuple(name for name in ("zstd", "br", "gzip") if coding_of(name))


def choose_coding(accept: str, offers: Sequence[str]) -> str:
    """The best of `offers` for an Accept-Encoding (RFC 9110, 12.5.3); the first of equals; "" for none of them."""
    weights = weights_of(accept)
    others = weights.get("*", 0.0)
    best = max(offers, key=lambda name: weights.get(name, others), default="")
    weight = weights.get(best, others)
    return best if weight > 0 and weight >= weights.get("identity", 0.0) else ""


def weights_of(accept: str) -> dict[str, float]:
    """The members of an Accept or Accept-Encoding header with their q; what cannot be read is left out."""
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


# Answers


def begin_compression(request: Request, response: Response) -> Coding | None:
    """The coding for a response whose content is bytes or a stream; None to leave it as it is.

    The response then has the headers that tell of it. A content that differs by Accept-Encoding says so (Vary).
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
    """A strong entity-tag stands for the bytes, and these are others (RFC 9110, 8.8.1)."""
    return (name, "W/" + value) if name == "etag" and not value.startswith("W/") else (name, value)


def compress(coding: Coding, content: bytes | memoryview) -> bytes:
    compressor = coding.compressor()
    return compressor.compress(content) + compressor.flush()  # type: ignore[arg-type]


def compress_pieces(coding: Coding, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Each piece is sent on at once."""
    compressor = coding.compressor()
    for piece in pieces:
        yield compressor.compress(piece) + coding.flush_block(compressor)
    yield compressor.flush()


# Requests


def decompress_body(header: str, body: bytes | memoryview, limit: int) -> bytes:
    """The body as it was before the codings that its Content-Encoding names. It takes at most `limit` bytes of memory.

    HTTPError 415 for a coding we do not have, 413 for a body that is longer, 400 for one that is broken.
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
        return b"".join(_unpacked(coding, bytes(body), limit))
    except HTTPError:
        raise
    except Exception as error:  # each library has its own
        raise HTTPError(400, f"The body is not {names[0]}: {str(error)[:200]}.") from None


def _unpacked(coding: Coding, data: bytes, limit: int) -> Iterator[bytes]:
    step = coding.decompressor()
    size, ended = 0, False
    while not ended:
        output, data, ended = step(data, OUTPUT_SIZE)
        size += len(output)
        if size > limit:
            raise HTTPError(413, f"The body has more than {limit} bytes when it is unpacked.")
        yield output
        if not output and not data and not ended:
            raise ValueError("it was cut short")
