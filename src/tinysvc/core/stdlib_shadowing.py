"""Files beside a service that have the name of a module of the standard library: `platform.py`, `queue.py`, ...

Python looks into the folder of the program first, so that libraries get these files in the place of what they need, and
fail in any way, a crash of the interpreter among them. So the file is named before the libraries load.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

# Nothing more is imported here, as each module may be the one that a file stands before.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType

_STDLIB = os.path.dirname(os.__file__)

FORKSERVER_VARIABLE = "_TINYSVC_STARTING"
"""A variable that only a new forkserver finds. A program that finds it was started in the place of Python."""

IMPORTED_LATER = (
    "uvloop",
    "tinysvc.server.server",
    "tinysvc.runtime.cpu_endpoints",
    "tinysvc.server.supervisor",
    "tinysvc.server.reload",
)
"""What tinysvc imports when it is needed; with it come all its libraries."""


def shadowing_files(path: Sequence[str]) -> dict[str, str]:
    """The files in the folders before the standard library, by the names of the modules that they stand before."""
    found: dict[str, str] = {}
    for folder in path:
        if folder == _STDLIB:
            break
        try:
            entries = os.listdir(folder or ".")
        except OSError:
            continue
        for entry in entries:
            name, _, extension = entry.partition(".")
            if name not in sys.stdlib_module_names:
                continue
            file = os.path.join(folder or os.getcwd(), entry)
            if extension in ("py", "pyc") or (not extension and os.path.isfile(os.path.join(file, "__init__.py"))):
                found.setdefault(name, file)
    return found


def stdlib_first(path: Sequence[str]) -> list[str]:
    """The folders of `path`, those of Python before those of the author."""
    return sorted(path, key=lambda folder: not (folder == _STDLIB or folder.startswith(_STDLIB + os.sep)))


def shadowing_message(file: str, name: str) -> str:
    """What is wrong with the file, and the remedy."""
    return f"{file} has the name of a module of the standard library, so that libraries get it for {name}: rename it"


def _is_beside(file: str) -> bool:
    """Whether the program is a script in the folder of the file: then no traceback of ours need be read."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return bool(script) and os.path.dirname(os.path.abspath(script)) == os.path.dirname(os.path.abspath(file))


class refuse_shadowing:  # noqa: N801 - it reads as a function
    """Import libraries within: a file that one of them would get for a module of Python ends the program by name.

    It is a finder, too: it finds the module of Python, so that no library fails half-way.
    """

    def __init__(self) -> None:
        self.found = shadowing_files(sys.path)
        self.wanted = ""

    def __enter__(self) -> None:
        if self.found:
            sys.meta_path.insert(0, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.found:
            return
        try:
            if error is None and FORKSERVER_VARIABLE not in os.environ:  # else a forkserver: its server has looked
                for module in IMPORTED_LATER:
                    import_module(module)
        finally:
            sys.meta_path.remove(self)
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if error is not None and not self.wanted:  # it was imported before us
            for name, file in self.found.items():
                if getattr(sys.modules.get(name), "__file__", None) == file:
                    self.wanted = name
        if self.wanted:
            text = shadowing_message(self.found[self.wanted], self.wanted)
            if sys.argv[:1] == ["-m"] or _is_beside(self.found[self.wanted]):
                print(f"tinysvc: {text}", file=sys.stderr)
                sys.exit(3)
            raise ImportError(text) from None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As importlib.abc.MetaPathFinder has it."""
        if name not in self.found or BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name):
            return None
        self.wanted = self.wanted or name
        return PathFinder.find_spec(name, stdlib_first(sys.path))
