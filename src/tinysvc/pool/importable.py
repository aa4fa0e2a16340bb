"""Whether new Python processes can import this program; clear refusals where they cannot."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from multiprocessing import process, spawn
from types import ModuleType
from typing import Any

from ..core.errors import ConfigurationError, WorkerStartError
from ..core.stdlib_shadowing import FORKSERVER_VARIABLE


def refuse_unimportable(function: Any) -> None:
    """Raise ConfigurationError for a function or class of a `__main__` that workers cannot import.

    Workers import the main module as multiprocessing does: by its name or its file.
    """
    function = getattr(function, "func", function)  # of a functools.partial
    if getattr(function, "__module__", "") != "__main__" or can_import_main(sys.modules["__main__"]):
        return
    if hasattr(function, "__qualname__"):
        raise ConfigurationError.at(
            function,
            "workers cannot import the program that this is defined in (a package's __main__, a zipapp, a notebook, "
            "python -c or an interactive session); move it to another module that workers can import, a .py file",
        )


@lru_cache(maxsize=1)  # a file system call, which each `run` of a function of the main module would repeat
def can_import_main(main: ModuleType) -> bool:
    """Whether another process can import the main module."""
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return not f".{name}".endswith(".__main__")
    path = getattr(main, "__file__", None) or ""
    return os.path.isfile(path) and os.path.basename(path) not in ("ipython", "ipython.py")


def refuse_frozen(feature: str) -> None:
    """Raise WorkerStartError if `sys.executable` is not Python: it would start the program again, without end.

    Args:
        feature: What needs new processes, as the subject of the message.
    """
    executable = os.fsdecode(spawn.get_executable() or "")
    if getattr(sys, "frozen", False) or FORKSERVER_VARIABLE in os.environ or not executable:
        os.environ.pop(FORKSERVER_VARIABLE, None)
        raise WorkerStartError(
            f"{feature} needs new Python processes, and this program's executable ({executable or 'unknown'}) is the "
            "program itself, as in a frozen one; serve it with python, or run its cpu handlers with cpu_workers=0"
        )


def refuse_while_importing() -> None:
    """Raise RuntimeError in a forkserver that imports the author's modules: it must not start a pool itself."""
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "a module starts workers, or calls tinysvc.run(), while the workers import it; "
            'write that call under: if __name__ == "__main__":'
        )
