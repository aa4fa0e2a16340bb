"""Files beside a service that shadow a module of the standard library: `platform.py`, `queue.py`, ...

Python searches the folder of the program first. Libraries then import the file instead of the module that they need,
and fail in any way; some crash the interpreter. The message therefore names the file before the libraries load.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

# Import nothing more here: a file may shadow any other module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType

_STDLIB = os.path.dirname(os.__file__)

FORKSERVER_VARIABLE = "_TINYSVC_STARTING"
"""An environment variable that only a new forkserver gets. A program that finds it was started in place of Python."""

IMPORTED_LATER = (
    "uvloop",
    "tinysvc.server.run",
    "tinysvc.runtime.cpu_endpoints",
    "tinysvc.server.supervisor",
    "tinysvc.server.reload",
)
"""Modules that tinysvc imports on demand. They import all its libraries."""


def shadowing_files(path: Sequence[str]) -> dict[str, str]:
    """Files in the folders before the standard library, by the name of the module that they shadow."""
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
    """The folders of `path`, with those of Python first."""
    return sorted(path, key=lambda folder: not (folder == _STDLIB or folder.startswith(_STDLIB + os.sep)))


def shadowing_message(file: str, name: str) -> str:
    """The sentence for a file that shadows a module, with the remedy."""
    return f"{file} shadows the module {name} of the standard library, and libraries import it instead: rename the file"


def _is_beside(file: str) -> bool:
    """Whether the program is a script in the folder of the file: then the message needs no traceback."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return bool(script) and os.path.dirname(os.path.abspath(script)) == os.path.dirname(os.path.abspath(file))


class refuse_shadowing:  # noqa: N801 - it reads as a function
    """A context for the import of libraries. A file that shadows a module that they import ends the program.

    The context is also a finder (`importlib.abc.MetaPathFinder`): it finds the module of Python meanwhile, because a
    library must not fail half-way.
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
            if error is None and FORKSERVER_VARIABLE not in os.environ:  # a forkserver need not check: its server has
                for module in IMPORTED_LATER:
                    import_module(module)
        finally:
            sys.meta_path.remove(self)
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if error is not None and not self.wanted:  # imported before tinysvc
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
        """See importlib.abc.MetaPathFinder."""
        if name not in self.found or BuiltinImporter.find_spec(name) or FrozenImporter.find_spec(name):
            return None
        self.wanted = self.wanted or name
        return PathFinder.find_spec(name, stdlib_first(sys.path))
