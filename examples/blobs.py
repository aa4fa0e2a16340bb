"""Files of any size, kept under the SHA-256 of their bytes. Try:

    curl --data-binary @video.mp4 http://127.0.0.1:8000/blobs
    curl -O http://127.0.0.1:8000/blobs/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

Files pass through in pieces, in both directions, at the speed of the slower side: a file of 20 GB needs no more memory
than a file of 20 KB. An incomplete upload is not kept. A second copy of the same bytes takes no space.
The variable BLOBS names the folder; without it, the files are deleted when the server stops.
"""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio
import msgspec

from tinysvc import HTTPError, Request, Response, io_resource, io_route

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

LARGEST = 1 << 40
"""Bytes of one file: the size of the disk is the limit."""

PIECE = 1 << 18
"""Bytes that are read from the disk at once."""


@io_resource
def folder() -> Iterator[Path]:
    """The folder of the files."""
    with tempfile.TemporaryDirectory(prefix="blobs-") as temporary:
        path = Path(os.environ.get("BLOBS", temporary))
        path.mkdir(parents=True, exist_ok=True)
        yield path


class Kept(msgspec.Struct):
    """A stored file: the name that its bytes have, and their number."""

    digest: str
    size: int


@io_route("/", methods=["POST"], max_body_size=LARGEST, responses={201: Kept, 413: "It is too big."})
async def keep(request: Request, folder: Path) -> Response:
    """Store a file. The response contains its name."""
    digest, size = hashlib.sha256(), 0
    with unfinished(folder) as path:
        async with await anyio.open_file(path, "wb") as file:
            async for piece in request.stream():
                digest.update(piece)
                size += len(piece)
                await file.write(piece)
        name = digest.hexdigest()
        path.rename(folder / name)
    return Response(Kept(name, size), 201, {"location": request.url_for(fetch, digest=name)})


@io_route("/{digest}", responses={404: "There is no such file."})
async def fetch(digest: Digest, folder: Path) -> Response:
    """A file, as it was sent. The size comes first, so that a client can notice an incomplete response."""
    path = folder / digest
    if not path.exists():
        raise HTTPError(404, "There is no such file.")
    headers = {"content-length": str(path.stat().st_size), "etag": f'"{digest}"'}
    return Response(pieces(path), headers=headers)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new temporary file; deleted at the end, unless it has been renamed."""
    descriptor, name = tempfile.mkstemp(prefix="unfinished-", dir=folder)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(PIECE):
            yield piece
