"""Which files of a version run code when they are loaded? Pickles do: `pickle`, `joblib`, `torch`, arrays of objects.

Names say nothing: `weights.bin` may be a pickle, and `numpy.load` and `torch.load` look at the content, too. So content
is looked at, also inside of zip and tar archives and of compressed files. A container that cannot be read here counts
as a pickle: its reader may be more forgiving than ours.

This finds pickles. It does not find other formats that can run code, as the Lambda layers of Keras.
"""

from __future__ import annotations

import ast
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..core.units import KiB
from .pickle_opcodes import is_pickle
from .unpacking import Bounded, Effort, Unreadable, counted, unpacked

MAX_DEPTH = 4
"""Containers inside of containers; deeper ones count as pickles."""
MAX_MEMBERS = 100_000
"""Files of an archive; larger archives count as pickles."""
MAX_NPY_HEADER = 64 * KiB
"""`numpy.load` refuses more than 10,000 bytes, unless it may unpickle."""
MAX_EFFORT = 60_000_000
"""About microseconds for the files of one version together; content that is not looked at then counts as a pickle."""

_NUMBERS = re.compile(r"[<>|=]?(\?|[biufcSUVa]\d*|[mM]8?(\[\w+\])?)", re.ASCII)
"""The types of numpy without objects, as `numpy.save` writes them."""


def find_pickles(folder: Path, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the paths, relative to a folder, whose content is a pickle or has one inside."""
    found = []
    effort = Effort(MAX_EFFORT)
    for path in paths:
        with open(folder / path, "rb") as file:
            if has_pickle(file, effort):
                found.append(path)
        if effort.left < 0:
            break
    return tuple(found)


def has_pickle(file: BinaryIO, effort: Effort | None = None) -> bool:
    """Is this content a pickle, or does it have one inside? The file is at its beginning, and can seek.

    Args:
        file: The file.
        effort: The rest of the work; default: `MAX_EFFORT`.
    """
    try:
        return _has_pickle(file, 0, effort or Effort(MAX_EFFORT))
    except OSError:  # of the disk; those of containers are `Unreadable`
        raise
    except Exception:  # hostile content finds exceptions that no list of them has
        return True


def _has_pickle(file: BinaryIO, depth: int, effort: Effort) -> bool:
    effort.spend(50)
    start = file.read(512)
    file.seek(0)
    if any(begins(start) and (depth >= MAX_DEPTH or inside(file, depth + 1, effort)) for begins, inside in _CONTAINERS):
        return True
    content = unpacked(file, start, effort)
    if content and (depth >= MAX_DEPTH or _has_pickle(content, depth + 1, effort)):
        return True
    file.seek(0)
    if is_pickle(file, effort.spend):
        return True
    # numpy and torch take an archive only from the beginning of a file; readers of zip files do not.
    return depth == 0 and zipfile.is_zipfile(file) and _zip_has_pickle(file, 1, effort)


def _zip_has_pickle(file: BinaryIO, depth: int, effort: Effort) -> bool:
    """Zip archives: `torch.save`, `numpy.savez`, and those that `skops` and Keras write."""
    try:
        with zipfile.ZipFile(cast("BinaryIO", Bounded(file))) as archive:
            members = archive.infolist()
            effort.spend(len(members))
            return len(members) > MAX_MEMBERS or any(
                _member_has_pickle(archive, each, depth, effort) for each in members
            )
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, ValueError, EOFError, zlib.error) as error:
        raise Unreadable from error


def _member_has_pickle(archive: zipfile.ZipFile, member: zipfile.ZipInfo, depth: int, effort: Effort) -> bool:
    with archive.open(member) as content:
        return _has_pickle(counted(cast("BinaryIO", content), effort), depth, effort)


def _tar_has_pickle(file: BinaryIO, depth: int, effort: Effort) -> bool:
    try:
        with tarfile.open(fileobj=cast("BinaryIO", Bounded(file)), mode="r:") as archive:
            for number, member in enumerate(archive):
                content = archive.extractfile(member) if member.isreg() else None
                if number >= MAX_MEMBERS or (content and _has_pickle(cast("BinaryIO", content), depth, effort)):
                    return True
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise Unreadable from error
    return False


def _npy_has_objects(file: BinaryIO, depth: int, effort: Effort) -> bool:
    """A file of `numpy.save` with objects: its data are a pickle. Arrays and pickles may follow in the same file."""
    while file.read(6) == b"\x93NUMPY":
        version = file.read(2)
        size = int.from_bytes(file.read(2 if version[:1] == b"\x01" else 4), "little")
        if size > MAX_NPY_HEADER:
            raise Unreadable
        effort.spend(size)
        try:
            header = ast.literal_eval(file.read(size).decode("latin-1").strip())
            types, count = list(_types_in(header["descr"])), prod(header["shape"])
            skipped = count * _size_of(types[0])
            if not isinstance(skipped, int) or skipped < 0:
                raise ValueError("the shape is not possible")
        except (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError) as error:
            raise Unreadable from error
        if not all(_NUMBERS.fullmatch(each) for each in types):
            return True
        if depth > 1 or not isinstance(header["descr"], str):
            return False  # an archive has one array in each member
        end = file.seek(skipped, io.SEEK_CUR)
    file.seek(end)
    return is_pickle(file, effort.spend)


def _types_in(descr: Any) -> Iterator[str]:
    """The type codes of a dtype: a text, or a list of (name, dtype) or (name, dtype, shape)."""
    if isinstance(descr, str):
        yield descr
    elif isinstance(descr, tuple):  # a dtype and its shape
        yield from _types_in(descr[0])
    else:
        for _, inner, *_ in descr:
            yield from _types_in(inner)


def _size_of(code: str) -> int:
    count = int(re.sub(r"\[.*|\D", "", code) or 1)
    return count * 4 if "U" in code else 8 if "M" in code or "m" in code else count


_CONTAINERS: list[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int, Effort], bool]]] = [
    (lambda start: start.startswith(b"PK\3\4"), _zip_has_pickle),
    (lambda start: start.startswith(b"\x93NUMPY"), _npy_has_objects),
    (lambda start: start[257:262] == b"ustar", _tar_has_pickle),
    # joblib reads these two formats, LZ4 and its old own one; the standard library cannot
    (lambda start: start.startswith((b"\x04\x22\x4d\x18", b"ZF0x")), lambda file, depth, effort: True),
]
"""How a container begins, and how its content is looked at."""
