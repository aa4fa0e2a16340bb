"""Load a Service from a target of the command line.

    hello.py                  a file
    package.module            a module; package.module:name for a Service in it
    examples                  a folder: every service in it, each under /<file name>; a package in the folder is one,
                              if its `__init__.py` makes a Service

A module with a global `service = Service(...)` is that service; any other is made of its decorated functions.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from typing import Any

from ..core.errors import ConfigurationError, source_location
from ..core.stdlib_shadowing import IMPORTED_LATER, shadowing_files, shadowing_message
from ..core.tracebacks import author_traceback
from ..runtime.checks import check
from ..service.plan import plans_of
from ..service.routes import Route, recorded
from ..service.service import Service

log = logging.getLogger("tinysvc")

BUNDLED = Path(__file__).parents[1] / "examples"
"""The examples in a wheel: `python -m tinysvc examples` works in an empty folder, too."""


LIBRARIES = (
    "<frozen ",
    *{f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")},
    f"{Path(__file__).parents[1]}/",
)
"""Prefixes of files that are not the author's. With a slash, because `tinysvc_shop` may be beside `tinysvc`; with the
scripts, because `tinysvc` is one."""


class TargetError(ConfigurationError):
    """The target names no service."""


class ImportFailed(ConfigurationError):
    """The author's module raised while it was imported; the message ends with the author's part of the traceback."""


def load_service(target: str | Service | types.ModuleType, *, strict: bool = False) -> Service:
    """The service that `target` names. TargetError, ImportFailed, or another ConfigurationError.

    `strict`: a file of a folder that cannot be served is an error, not a warning.
    """
    if isinstance(target, Service):
        return target
    if isinstance(target, types.ModuleType):
        return _service_of(target)
    if not isinstance(target, str):
        raise TargetError(
            f"a Service, a module, or the name of a file, folder or module is served, not {target!r}; "
            "of functions make a Service(...)"
        )
    name, _, attribute = target.partition(":")
    path = Path(name)
    if path.is_dir() and name:
        return _load_folder(path, strict)
    if path.is_file():
        return _service_in(_import_file(path), attribute)
    if target == "examples" and BUNDLED.is_dir():
        return _load_folder(BUNDLED, strict)
    if path.suffix == ".py" or "/" in target:
        raise TargetError(f"there is no file or folder {target!r} in {Path.cwd()}")
    return _service_in(_import_module(name), attribute)


def is_authors(file: str) -> bool:
    """Whether this file is a part of the service, and not of a library, of Python or of tinysvc."""
    return not file.startswith(LIBRARIES)


def load_main(name: str) -> Service:
    """The service of the module called `name`, which is already imported: for `tinysvc.run(__name__)`."""
    if name not in sys.modules:
        raise TargetError(f"there is no imported module {name!r}; call tinysvc.run(__name__) at the module's end")
    return _service_of(sys.modules[name])


def _service_of(module: types.ModuleType) -> Service:
    service = getattr(module, "service", None)
    if not isinstance(service, Service):
        return Service(module)
    served = {route.function for _, route in service.all_routes()}
    for function in vars(module).values():
        if _has_route(function, module) and function not in served:
            log.warning(
                "%s has a route, but is not part of the service of its module: name it in the Service(...), or remove "
                "its decorator",
                source_location(function),
            )
    return service


def _service_in(module: types.ModuleType, attribute: str) -> Service:
    """The Service called `attribute`; with an empty name, the module's own."""
    if not attribute:
        return _service_of(module)
    service = getattr(module, attribute, None)
    if not isinstance(service, Service):
        there = ", ".join(key for key, value in vars(module).items() if isinstance(value, Service))
        remedy = f"leave out ':{attribute}' to serve the module's own routes"
        if there:
            remedy = f"name one of those that it has ({there}), or {remedy}"
        raise TargetError(f"{module.__name__} has no Service called {attribute!r}; {remedy}")
    return service


def _import_module(name: str) -> types.ModuleType:
    _on_path(Path.cwd())
    try:
        found = importlib.util.find_spec(name)
    except ValueError:
        found = None  # such as an empty name
    except ConfigurationError as error:
        _name_place(error)
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise TargetError(f"there is no module {error.name!r} (looked in {Path.cwd()} and on sys.path)") from None
        raise ImportFailed(f"importing {name} failed:\n{author_traceback(error)}") from None
    if found is None:
        raise TargetError(f"there is no file, folder or module {name!r} (looked in {Path.cwd()} and on sys.path)")
    return _guarded(lambda: importlib.import_module(name), name)


def _import_file(path: Path) -> types.ModuleType:
    """Import a file as a top-level module, so that workers can import it by the same name."""
    path = path.resolve()
    name = path.stem
    if path.suffix != ".py" or "." in name:
        raise TargetError(f"{path} cannot be imported; a service is a .py file without another dot in its name")
    folder = path.parent
    while (folder / "__init__.py").is_file():  # a file in a package is that package's module
        name, folder = f"{folder.name}.{name}", folder.parent
    if path.stem == "__init__":
        name = name.rpartition(".")[0]
    _on_path(folder)
    module = _guarded(lambda: importlib.import_module(name), str(path))
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path:
        raise TargetError(f"the name {name} is taken by {found or 'a built-in module'}; rename {path}")
    return module


def _load_folder(folder: Path, strict: bool) -> Service:
    """Every service in the folder under its file's name. A file that cannot be served is left out with a warning, or
    is fatal if `strict`.
    """
    services, failures = [], []
    for name, path in _modules_in(folder.resolve()):
        if not _may_serve(name, path):
            continue
        try:
            module = _import_file(path)
            if _serves(module):
                service = Service(_service_of(module), prefix=f"/{name}", name=name)
                for plan in plans_of(service):
                    check(plan)
                services.append(service)
        except ConfigurationError as error:
            if strict:
                raise
            failures.append(f"{path.relative_to(folder.resolve())} is not served: {_in_a_line(error)}")
    if not services:
        why = "".join(f"\n{failure}" for failure in failures)
        raise TargetError(
            f"no file in the folder {folder} has a function with @io_route, @cpu_route or @job_route{why}"
        )
    for failure in failures:
        log.warning("%s", failure)
    return Service(*services, name=folder.resolve().name)


def _modules_in(folder: Path) -> list[tuple[str, Path]]:
    """The modules and packages in the folder: the name of each, and its file."""
    modules = [(path.stem, path) for path in folder.glob("*.py") if path.stem != "__init__"]
    return sorted(modules + [(path.parent.name, path) for path in folder.glob("*/__init__.py")])


def _may_serve(name: str, path: Path) -> bool:
    """Whether to import the file: not tests, private modules, files without tinysvc, and packages without a Service."""
    if name.startswith(("_", "test_")) or name.endswith("_test") or name in ("conftest", "setup", "noxfile", "tests"):
        return False
    text = path.read_bytes()
    words = (b"Service(",) if path.stem == "__init__" else (b"tinysvc", b"route", b"Service")
    return any(word in text for word in words)


def _in_a_line(error: ConfigurationError) -> str:
    cause = error.__context__
    if isinstance(error, ImportFailed) and isinstance(cause, ModuleNotFoundError) and cause.name:
        return f"it imports {cause.name}, which is not installed; pip install {cause.name.partition('.')[0]}"
    return str(error).strip().splitlines()[-1] if isinstance(error, ImportFailed) else str(error).partition("\n")[0]


def _serves(module: types.ModuleType) -> bool:
    return isinstance(getattr(module, "service", None), Service) or any(
        _has_route(value, module) for value in vars(module).values()
    )


def _has_route(value: Any, module: types.ModuleType) -> bool:
    """Whether it is a handler that the module defines."""
    defined_here = getattr(value, "__module__", "") == module.__name__
    return defined_here and any(isinstance(record, Route) for record in recorded(value))


def _on_path(folder: Path) -> None:
    entry = str(folder.resolve())
    if entry not in sys.path:
        if shadowing_files([entry]):
            for name in IMPORTED_LATER:  # they import the standard library's modules
                importlib.import_module(name)
        sys.path.insert(0, entry)


def _guarded(load: Callable[[], Any], what: str) -> types.ModuleType:
    try:
        module: types.ModuleType = load()
    except ConfigurationError as error:
        _name_place(error)
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        text = f"importing {what} failed:\n{author_traceback(error)}"
        shadows = [shadowing_message(file, name) for name, file in shadowing_files(sys.path).items() if file in text]
        raise ImportFailed("\n".join((text, *shadows))) from None
    return module


_PLACE = re.compile(r"\.py:\d")


def _name_place(error: ConfigurationError) -> None:
    """Begin the message with the author's line that has raised the error, unless the message names a place itself."""
    frames = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    places = [f"{file}:{line}" for file, line in frames if file.endswith(".py") and is_authors(file)]
    if places and not _PLACE.search(str(error)):
        error.args = (f"{places[-1]}: {error}",)
