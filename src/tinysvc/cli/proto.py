"""`--proto` prints the .proto file of a service; `--proto --check` compares the code with the committed file."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..core.errors import ConfigurationError
from ..grpc.breaking import breaks_of
from ..grpc.proto_file import ProtoFile
from ..grpc.proto_lock import additions
from ..grpc.proto_parser import parse_proto
from ..grpc.proto_text import text_of
from ..grpc.rpc_schema import RpcSchema
from ..grpc.schema_of import Lock, lock_of, name_of, read_file, schemas_of
from ..service.plan import plans_of
from ..service.service import Service


class Checked(NamedTuple):
    """The result of a check: lines for people, and whether the code breaks clients."""

    lines: list[str]
    breaks: bool


class Served(NamedTuple):
    """What gRPC can serve of a service."""

    schemas: dict[str, RpcSchema]
    """By the name of the module."""
    left_out: list[str]
    """The routes that only HTTP serves, each with the reason."""


def proto_text(served: Served, target: str) -> str:
    """The .proto file of a service with one module.

    Raises:
        ConfigurationError: The service has several modules.
    """
    schemas = served.schemas
    if len(schemas) > 1:
        raise ConfigurationError(
            f"the handlers of {target} are in {len(schemas)} modules, and each has a .proto file of its own; "
            f"name one of them: {', '.join(schemas)}"
        )
    (schema,) = schemas.values()
    (file,) = schema.proto_files
    return text_of(file, f"python -m tinysvc {shlex.quote(Path(target).name)} --proto")


def check(service: Service) -> Checked:
    """Compare the types of a service with the committed .proto file beside each of its modules."""
    lines: list[str] = []
    breaks = False
    for module, schema in served_by_grpc(service, strict=False).schemas.items():
        lock = _lock_of(module, schema)
        name = f"{schema.proto_files[0].package}.proto" if lock.path is None else str(lock.path)
        if lock.text is None:
            lines.append(f"{name}: there is no such file; commit the one that --proto prints")
            breaks = True
            continue
        before, (after,) = parse_proto(lock.text, name), schema.proto_files
        found = breaks_of(before, after)
        lines += [f"{name}: {each}" for each in found]
        breaks = breaks or bool(found)
        if not found:
            lines.append(f"{name}: {_state(before, after)}")
    return Checked(lines, breaks)


def _state(before: ProtoFile, after: ProtoFile) -> str:
    """Whether the committed file has all that the code has, and no more."""
    missing, extra = additions(after, before), additions(before, after)
    differences = [
        *([f"it lacks {', '.join(missing)}"] if missing else []),
        *([f"it still has {', '.join(extra)}"] if extra else []),
    ]
    if not differences:
        return "fits the code"
    return f"is out of date: {'; '.join(differences)}; print it again with --proto, and commit it"


def served_by_grpc(service: Service, *, strict: bool) -> Served:
    """The modules of a service that gRPC can serve.

    Args:
        service: The service.
        strict: Whether a type that has changed against a committed file is an error.

    Raises:
        ConfigurationError: There is none; or a type has no counterpart in protobuf, or has changed.
    """
    found = schemas_of(plans_of(service), committed, strict=strict)
    served = {module: schema for module, schema in found.items() if schema.methods}
    left_out = [f"{plan.path}: {reason}" for schema in found.values() for plan, reason in schema.left_out]
    if not served:
        raise ConfigurationError("".join(["gRPC can serve none of the routes", *(f"\n  {each}" for each in left_out)]))
    return Served(served, left_out)


def _lock_of(module: str, schema: RpcSchema) -> Lock:
    function = schema.methods[0].plan.route.function
    return lock_of(module, name_of(module, function), committed)


def committed(path: Path) -> str | None:
    """The text of a .proto file; None if there is none.

    `--proto > shop.proto` has emptied the file before this process reads it. Then git has the text.
    """
    text = read_file(path)
    if text is None or text.strip():
        return text
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(path.parent), "show", f":./{path.name}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout if found.returncode == 0 and found.stdout.strip() else None


def run_proto(load: Callable[[], Service], target: str, *, checks: bool) -> int:
    """Print the file, or the result of the check. The exit status: 1 if the code breaks clients."""
    service = load()
    if not checks:
        served = served_by_grpc(service, strict=True)
        print(proto_text(served, target), end="")
        for each in served.left_out:
            print(f"tinysvc: only HTTP serves {each}", file=sys.stderr)  # stdout is the file
        return 0
    found = check(service)
    print(*found.lines, sep="\n")
    return int(found.breaks)
