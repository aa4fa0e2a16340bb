"""Files of a folder: `StaticFiles("public")`, at the top level of a service's module, or as a part of a Service.

Only regular files inside the folder are served. A path with a name that begins with a dot, with `..`, an encoded slash
or a backslash, and a link that leaves the folder, get the same 404 as a missing file: the response must not show which
files exist outside.

Files are opened and sent on the event loop, without a thread, as in nginx: the folder must be on a local disk.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import ConfigurationError, HTTPError
from ..core.query import CONTROL_CHARACTERS
from ..core.requests import Request
from ..core.responses import FileContent, Response, add_vary
from ..service.decorators import io_route
from ..service.routes import About
from ..service.service import Service
from ..wire.codings import choose_coding
from ..wire.ranges import MultipartRanges, parse_range
from .conditional import precondition, validators

COMPRESSED_SUFFIXES = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""The suffix of a compressed file beside a file, by content coding; the preferred coding first."""

INDEX = "index.html"

_TYPES = mimetypes.MimeTypes(filenames=())  # without the files of the system: the same on every machine
_MORE_TYPES = {
    ".avif": "image/avif",
    ".js": "text/javascript",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ico": "image/x-icon",
}
_TEXTS = ("text/", "application/json", "application/manifest+json", "image/svg+xml", "application/xml")


_RESPONSES = {
    200: "The file.",
    206: "The requested ranges of the file.",
    301: "The path is a folder: add a slash.",
    304: "The copy of the client is current.",
    404: "There is no such file.",
    412: "The file does not match the condition of the request.",
    416: "The file does not have the requested range.",
}


class StaticFiles(Service):
    """Serve the files of a folder, for GET and HEAD; `index.html` for a folder within it.

    It is a service: a part of a `Service`, or a name at the top level of a service's module. Responses have validators
    (ETag, Last-Modified), and obey conditional and range requests (RFC 9110, 13 and 14). `name.br`, `name.zst` or
    `name.gz` is sent in place of the file `name` to a client that accepts it. Symbolic links that leave the folder, and
    names that begin with a dot, are a 404.

    Args:
        folder: The folder; a relative path starts at the working directory.
        prefix: Prefix of the paths.
        cache_control: Value of `Cache-Control` for every file. By default clients may keep a file, and revalidate it
            before each use.

    Raises:
        ConfigurationError: There is no such folder.

    Example:
        ```python
        import tempfile

        from tinysvc import Service
        from tinysvc.web.static import StaticFiles

        service = Service(StaticFiles(tempfile.gettempdir(), prefix="/files", cache_control="max-age=60"))
        ```
    """

    is_part_of_module = True

    def __init__(
        self, folder: str | os.PathLike[str], *, prefix: str = "/static", cache_control: str = "no-cache"
    ) -> None:
        self.root = os.path.realpath(folder)
        if not os.path.isdir(self.root):
            raise ConfigurationError(
                f"there is no folder {os.path.abspath(folder)} for StaticFiles; "
                'pass the path of a folder, as in StaticFiles(Path(__file__).parent / "static")'
            )
        self._cache_control = cache_control
        root = self.root

        about = About(summary=f"The files of {Path(root).name}/.", responses=_RESPONSES)

        @io_route("/", **about)
        async def index(request: Request) -> Response:
            return self._respond(request, "")

        @io_route("/{path:path}", **about)
        async def file(request: Request, path: str) -> Response:
            return self._respond(request, path)

        index.__qualname__ = file.__qualname__ = f"StaticFiles({Path(root).name})"
        super().__init__(index, file, prefix=prefix, name=Path(root).name)

    def _respond(self, request: Request, path: str) -> Response:
        if not _is_safe(request.raw_path, path):
            raise _not_found()
        name = os.path.join(self.root, path)
        is_folder = request.raw_path.endswith("/")
        file = None if is_folder else self._open(name)
        if file is None:
            name = os.path.join(name, INDEX)
            file = self._open(name)
            if file is None:
                raise _not_found()
            if not is_folder:
                file.close()
                return _redirect_to_folder(request.raw_path)
        return self._response_of(request, name, file)

    def _open(self, name: str) -> BinaryIO | None:
        """Open the regular file with this name; None if there is none inside the folder."""
        real = os.path.realpath(name)
        if not real.startswith(self.root.rstrip("/") + "/"):
            return None
        try:
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb", buffering=0)
        os.close(descriptor)
        return None

    def _response_of(self, request: Request, name: str, file: BinaryIO) -> Response:
        try:
            coding, compressed = self._compressed_file(request, name)
            if compressed is not None:
                file.close()
                file = compressed
            response = self._file_response(request, name, file, coding)
        except BaseException:
            file.close()
            raise
        if not isinstance(response.content, FileContent) and response.status != 206:
            file.close()
        if coding is not None:
            add_vary(response, "accept-encoding")
        return response

    def _compressed_file(self, request: Request, name: str) -> tuple[str | None, BinaryIO | None]:
        """The content coding to send, and its file. The coding is None if there is no compressed file at all."""
        files = {coding: file for coding, suffix in COMPRESSED_SUFFIXES.items() if (file := self._open(name + suffix))}
        if not files:
            return None, None
        chosen = (
            "" if "range" in request.headers else choose_coding(request.headers.get("accept-encoding", ""), list(files))
        )
        for coding, file in files.items():
            if coding != chosen:
                file.close()
        return chosen, files.get(chosen)

    def _file_response(self, request: Request, name: str, file: BinaryIO, coding: str | None) -> Response:
        status = os.fstat(file.fileno())
        etag, size = f"{status.st_mtime_ns:x}-{status.st_size:x}" + (f"-{coding}" if coding else ""), status.st_size
        modified = status.st_mtime
        common = [("cache-control", self._cache_control), ("x-content-type-options", "nosniff")]
        if response := precondition(request, etag=etag, last_modified=modified):
            response.headers += common[:1]
            return response
        headers = [*validators(etag=etag, last_modified=modified), *common, ("accept-ranges", "bytes")]
        content_type = content_type_of(name)
        if coding:
            headers.append(("content-encoding", coding))
        ranges = _requested_ranges(request, size, headers)
        if ranges is None:
            return Response(FileContent(file, 0, size), 200, headers, content_type)
        if not ranges:
            raise HTTPError(416, f"The file has {size} bytes.", headers=[("content-range", f"bytes */{size}")])
        if len(ranges) == 1:
            headers.append(("content-range", ranges[0].content_range(size)))
            return Response(FileContent(file, *ranges[0]), 206, headers, content_type)
        many = MultipartRanges(file, ranges, size, content_type)
        return Response(many.pieces(), 206, [*headers, ("content-length", str(many.size))], many.content_type)


def _is_safe(raw_path: str, path: str) -> bool:
    """Whether the path is names with slashes between them, and nothing that a file system reads in another way."""
    raw = raw_path.lower()
    segments = path.removesuffix("/").split("/") if path else []
    return (
        "%2f" not in raw
        and "\\" not in path
        and "\ufffd" not in path  # bytes that are not UTF-8
        and not CONTROL_CHARACTERS.search(path)
        and not any(not segment or segment.startswith(".") for segment in segments)
    )


def _not_found() -> HTTPError:
    return HTTPError(404, "Nothing is served at this path.")


def _redirect_to_folder(raw_path: str) -> Response:
    """Redirect a folder's path without a slash. The location is relative: it cannot lead to another host."""
    name = raw_path.rpartition("/")[2]
    return Response(b"", 301, [("location", f"./{name}/")])


def _requested_ranges(request: Request, size: int, headers: list[tuple[str, str]]) -> Any:
    """The ranges to send; None for the whole file (RFC 9110, 14.2), also if If-Range names another state of it."""
    header = request.headers.get("range")
    if header is None or request.method != "GET":
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() not in (dict(headers)["etag"], dict(headers)["last-modified"]):
        return None
    return parse_range(header, size)


def content_type_of(name: str) -> str:
    """The content type by the suffix of the name. Text is assumed to be UTF-8."""
    suffix = os.path.splitext(name)[1].lower()
    found = _MORE_TYPES.get(suffix) or _TYPES.guess_type("x" + suffix)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith(_TEXTS) else found
