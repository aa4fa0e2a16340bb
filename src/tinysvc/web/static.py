"""A folder of files: `StaticFiles("public")`, at the top level of a service's module, or as a part of a Service.

What is served is what a plain name leads to, inside the folder: no name that begins with a dot, no `..`, no encoded
slash, no backslash, no link that leaves the folder, nothing but regular files. Whatever else is asked for is the one
404 of a file that is not there, so that nobody learns what is outside.

A file is opened, looked at and sent by the kernel on the event loop, as nginx does it: for folders on a local disk.
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

SIBLINGS = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Codings whose files may stand beside a file, the best first."""

INDEX = "index.html"

_TYPES = mimetypes.MimeTypes(filenames=())  # Python's own table: the same on every machine
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
    206: "The parts that were asked for.",
    301: "It is a folder, whose name ends with a slash.",
    304: "The client has it already.",
    404: "There is no such file.",
    412: "The file is not as the client expects.",
    416: "The file has no such part.",
}


class StaticFiles(Service):
    """Serve the files of a folder, for GET and HEAD; `index.html` for a folder within it.

    It is a service: a part of a `Service`, or a name at the top level of a service's module. Responses have validators
    (ETag, Last-Modified), and obey conditional and range requests (RFC 9110, 13 and 14). `name.br`, `name.zst` or
    `name.gz` is sent in place of the file `name` to a client that accepts it. Links that leave the folder, and names
    that begin with a dot, are a 404.

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
                f"there is no folder {os.path.abspath(folder)} to serve files of; "
                'name one that exists, as in StaticFiles(Path(__file__).parent / "static")'
            )
        self._cache_control = cache_control
        root = self.root

        about = About(summary=f"The files of {Path(root).name}/.", responses=_RESPONSES)

        @io_route("/", **about)
        async def index(request: Request) -> Response:
            return self._answer(request, "")

        @io_route("/{path:path}", **about)
        async def file(request: Request, path: str) -> Response:
            return self._answer(request, path)

        index.__qualname__ = file.__qualname__ = f"StaticFiles({Path(root).name})"
        super().__init__(index, file, prefix=prefix, name=Path(root).name)

    def _answer(self, request: Request, path: str) -> Response:
        if not _is_plain(request.raw_path, path):
            raise _missing()
        name = os.path.join(self.root, path)
        is_folder = request.raw_path.endswith("/")
        file = None if is_folder else self._opened(name)
        if file is None:
            name = os.path.join(name, INDEX)
            file = self._opened(name)
            if file is None:
                raise _missing()
            if not is_folder:
                file.close()
                return _with_slash(request.raw_path)
        return self._found(request, name, file)

    def _opened(self, name: str) -> BinaryIO | None:
        """The regular file of this name, if it is inside the folder."""
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

    def _found(self, request: Request, name: str, file: BinaryIO) -> Response:
        try:
            coding, packed = self._packed(request, name)
            if packed is not None:
                file.close()
                file = packed
            response = self._response(request, name, file, coding)
        except BaseException:
            file.close()
            raise
        if not isinstance(response.content, FileContent) and response.status != 206:
            file.close()
        if coding is not None:
            add_vary(response, "accept-encoding")
        return response

    def _packed(self, request: Request, name: str) -> tuple[str | None, BinaryIO | None]:
        """The coding that is sent and its file. A coding of None: there is no file beside this one."""
        there = {coding: file for coding, end in SIBLINGS.items() if (file := self._opened(name + end))}
        if not there:
            return None, None
        wanted = (
            "" if "range" in request.headers else choose_coding(request.headers.get("accept-encoding", ""), list(there))
        )
        for coding, file in there.items():
            if coding != wanted:
                file.close()
        return wanted, there.get(wanted)

    def _response(self, request: Request, name: str, file: BinaryIO, coding: str | None) -> Response:
        status = os.fstat(file.fileno())
        etag, size = f"{status.st_mtime_ns:x}-{status.st_size:x}" + (f"-{coding}" if coding else ""), status.st_size
        modified = status.st_mtime
        common = [("cache-control", self._cache_control), ("x-content-type-options", "nosniff")]
        if answer := precondition(request, etag=etag, last_modified=modified):
            answer.headers += common[:1]
            return answer
        headers = [*validators(etag=etag, last_modified=modified), *common, ("accept-ranges", "bytes")]
        content_type = content_type_of(name)
        if coding:
            headers.append(("content-encoding", coding))
        parts = _wanted_parts(request, size, headers)
        if parts is None:
            return Response(FileContent(file, 0, size), 200, headers, content_type)
        if not parts:
            raise HTTPError(416, f"The file has {size} bytes.", headers=[("content-range", f"bytes */{size}")])
        if len(parts) == 1:
            headers.append(("content-range", parts[0].content_range(size)))
            return Response(FileContent(file, *parts[0]), 206, headers, content_type)
        many = MultipartRanges(file, parts, size, content_type)
        return Response(many.pieces(), 206, [*headers, ("content-length", str(many.size))], many.content_type)


def _is_plain(raw_path: str, path: str) -> bool:
    """Whether the path means what it says to everybody: names with slashes between them, and no tricks."""
    raw = raw_path.lower()
    segments = path.removesuffix("/").split("/") if path else []
    return (
        "%2f" not in raw
        and "\\" not in path
        and "\ufffd" not in path  # what was no UTF-8
        and not CONTROL_CHARACTERS.search(path)
        and not any(not segment or segment.startswith(".") for segment in segments)
    )


def _missing() -> HTTPError:
    return HTTPError(404, "Nothing is served at this path.")


def _with_slash(raw_path: str) -> Response:
    """A folder's name without its slash. The address is relative, so that it cannot lead to another host."""
    name = raw_path.rpartition("/")[2]
    return Response(b"", 301, [("location", f"./{name}/")])


def _wanted_parts(request: Request, size: int, headers: list[tuple[str, str]]) -> Any:
    """None for the whole file (RFC 9110, 14.2): also where If-Range names another state of it."""
    wanted = request.headers.get("range")
    if wanted is None or request.method != "GET":
        return None
    condition = request.headers.get("if-range")
    if condition is not None and condition.strip() not in (dict(headers)["etag"], dict(headers)["last-modified"]):
        return None
    return parse_range(wanted, size)


def content_type_of(name: str) -> str:
    """By the name's end. Texts are taken to be UTF-8."""
    end = os.path.splitext(name)[1].lower()
    found = _MORE_TYPES.get(end) or _TYPES.guess_type("x" + end)[0] or "application/octet-stream"
    return f"{found}; charset=utf-8" if found.startswith(_TEXTS) else found
