"""The gRPC services of a service: one for each module with handlers, with the .proto file beside the module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ConfigurationError
from ..runtime.open_services import service_name
from ..service.plan import Plan, plan_of
from ..service.routes import Route, recorded
from .message_classes import file_set, files_in
from .proto_names import package_of
from .rpc_schema import RpcSchema, no_file


@dataclass(frozen=True)
class Lock:
    """The committed .proto file of a module: its place, and its text if it exists."""

    path: Path | None
    """None for a module without a file."""
    text: str | None


def schema_of(plans: Iterable[Plan]) -> RpcSchema:
    """The gRPC services of these routes as one schema.

    Raises:
        ConfigurationError: A type has no counterpart in protobuf, or has changed against a committed .proto file.
    """
    schemas = list(schemas_of(plans).values())
    notes = [note for each in schemas if each.has_file for note in each.notes]
    files = [file for each in schemas if not each.has_file for file in each.proto_files]
    without = [f"{file.package}.proto" for file in files if file.services]
    if without:
        notes.append(no_file(without))
    return RpcSchema(
        [method for each in schemas for method in each.methods],
        file_set(file for each in schemas for file in files_in(each.file_descriptor_set)),
        [file for each in schemas for file in each.proto_files],
        [left_out for each in schemas for left_out in each.left_out],
        notes,
        not without,
    )


def schemas_of(
    plans: Iterable[Plan], read: Callable[[Path], str | None] | None = None, *, strict: bool = True
) -> dict[str, RpcSchema]:
    """The schema of each module with handlers, by the module's name.

    Args:
        plans: The routes.
        read: Reads a committed file; None if there is none.
        strict: Whether a type that has changed against a committed file is an error.
    """
    by_module: dict[str, list[Plan]] = {}
    for plan in plans:
        by_module.setdefault(plan.route.function.__module__, []).append(plan)
    found: dict[str, RpcSchema] = {}
    packages: dict[str, str] = {}
    for module, some in by_module.items():
        name = name_of(module, some[0].route.function)
        lock = lock_of(module, name, read or read_file)
        schema = RpcSchema.of(name, some, lock.text, strict=strict)
        if schema.methods and (other := packages.setdefault(package_of(name), module)) != module:
            raise ConfigurationError(
                f"the modules {other} and {module} both have the package {package_of(name)} in gRPC; rename one of them"
            )
        found[module] = schema
    return found


def schema_of_function(function: Callable[..., Any]) -> RpcSchema:
    """The schema of one handler that another process serves, as its module shows it: for calls."""
    routes = [each for each in recorded(function) if isinstance(each, Route)]
    return schemas_of([plan_of(function, each) for each in routes])[function.__module__]


def name_of(module: str, function: Callable[..., Any]) -> str:
    """The name of the service that the handlers of a module are in; calls name it in the same way."""
    if module == "__main__" and (file := getattr(sys.modules[module], "__file__", None)):
        return Path(file).stem
    return service_name(function)


def lock_of(module: str, name: str, read: Callable[[Path], str | None]) -> Lock:
    """The committed file of a module."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file:
        return Lock(None, None)
    path = Path(file).with_name(f"{package_of(name)}.proto")
    return Lock(path, read(path))


def read_file(path: Path) -> str | None:
    """The text of a file; None if it does not exist. ConfigurationError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
