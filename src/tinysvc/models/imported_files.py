"""Files from elsewhere become the files of a publication: copied, links as their content."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from .errors import PublicationRefused


def copy_files(source: Path, folder: Path, only: Sequence[str] = ()) -> int:
    """Copy a file, or the files of a folder, into a folder. Return how many they are.

    Args:
        source: The file or folder. Links in it are followed.
        folder: Gets the files under the same paths.
        only: Patterns of the paths, as in "*.safetensors", where `*` stands for `/`, too; all files without one.

    Raises:
        PublicationRefused: A file cannot be read, or there are none.
    """
    if not source.exists():
        raise PublicationRefused(f"{source} does not exist")
    try:
        paths = [source] if source.is_file() else sorted(_files(source))
        chosen = [path for path in paths if _is_chosen(_place(path, source), only)]
        for path in chosen:
            target = folder / _place(path, source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    except OSError as error:
        raise PublicationRefused(f"{error.filename or source} cannot be read: {error.strerror or error}") from error
    if not chosen:
        pattern = f" that fits {' or '.join(only)}" if only else ""
        raise PublicationRefused(f"{source} has no file{pattern}")
    return len(chosen)


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    real = folder.resolve()
    if real in above:
        raise PublicationRefused(f"{folder} is a link to a folder that it is in")
    found: list[Path] = []
    for path in folder.iterdir():
        found += _files(path, above | {real}) if path.is_dir() else [path]
    return found


def _place(path: Path, source: Path) -> str:
    return path.name if path == source else path.relative_to(source).as_posix()


def _is_chosen(place: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatchcase(place, pattern) for pattern in only)
