"""Handlers that take forms, on the loop and in workers (test_forms.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from tinysvc import Form, Request, UploadFile, cpu_route, io_route


@dataclass
class Entry:
    title: str
    rating: Annotated[int, msgspec.Meta(ge=0)] = 0
    tags: list[str] = field(default_factory=list)
    photo: UploadFile | None = None
    more: list[UploadFile] = field(default_factory=list)


def described(upload: UploadFile) -> dict[str, Any]:
    content = upload.read()
    rest = {"filename": upload.filename, "type": upload.content_type, "size": upload.size, "pid": os.getpid()}
    return rest | {"sum": sum(content), "length": len(content)}


@io_route("/io/file", methods=["POST"])
async def io_file(file: UploadFile, note: Annotated[str, Form()] = "-") -> Any:
    return described(file) | {"note": note}


@cpu_route("/cpu/file", methods=["POST"])
def cpu_file(file: UploadFile, note: Annotated[str, Form()] = "-") -> Any:
    return described(file) | {"note": note}


@io_route("/io/files", methods=["POST"])
async def io_files(files: list[UploadFile], numbers: Annotated[list[int], Form()] = []) -> Any:  # noqa: B006
    return [[each.filename for each in files], numbers]


@cpu_route("/cpu/files", methods=["POST"])
def cpu_files(files: list[UploadFile], numbers: Annotated[list[int], Form()] = []) -> Any:  # noqa: B006
    return [[each.filename for each in files], numbers]


def shown(entry: Entry) -> Any:
    photos = [each.filename for each in ([entry.photo] if entry.photo else []) + entry.more]
    return [entry.title, entry.rating, entry.tags, photos]


@io_route("/io/entry", methods=["POST"])
async def io_entry(entry: Annotated[Entry, Form()]) -> Any:
    return shown(entry)


@cpu_route("/cpu/entry", methods=["POST"])
def cpu_entry(entry: Annotated[Entry, Form()]) -> Any:
    return shown(entry)


@io_route("/io/optional", methods=["POST"])
async def io_optional(file: UploadFile | None = None, name: Annotated[str, Form("the-name")] = "nobody") -> Any:
    return [file and file.filename, name]


@cpu_route("/cpu/optional", methods=["POST"])
def cpu_optional(file: UploadFile | None = None, name: Annotated[str, Form("the-name")] = "nobody") -> Any:
    return [file and file.filename, name]


@io_route("/io/form", methods=["POST"])
async def io_form(request: Request) -> Any:
    form = await request.form()
    assert await request.form() is form
    return [form.fields, {name: [each.filename for each in files] for name, files in form.files.items()}]


@io_route("/io/fails", methods=["POST"])
async def io_fails(file: UploadFile) -> None:
    raise RuntimeError(f"with {file.filename}")


@io_route("/io/thread", methods=["POST"])
def io_thread(file: UploadFile, path: str) -> int:
    file.save(path)
    return Path(path).stat().st_size


def _in_pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(100_000):
        yield piece


@io_route("/io/pieces", methods=["POST"])
def io_pieces(file: UploadFile) -> Iterator[bytes]:
    return _in_pieces(file.file)


@io_route("/io/lines", methods=["POST"])
async def io_lines(file: UploadFile) -> Iterator[bytes]:
    return (line for line in file.file)


@cpu_route("/cpu/pieces", methods=["POST"])
def cpu_pieces(file: UploadFile) -> Iterator[bytes]:
    return _in_pieces(file.file)


@cpu_route("/cpu/lines", methods=["POST"])
def cpu_lines(file: UploadFile) -> Iterator[bytes]:
    return (line for line in file.file)
