"""Every option and limit of a server, in one frozen table: its default, its variable, its flag and why.

The order in which a value is looked for: command line or `run(...)`, then `TINYSVC_<NAME>`, then `Service(...)`,
then the default here.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import resource
from collections.abc import Mapping
from typing import Any

from .errors import ConfigurationError

KiB, MiB = 1024, 1024 * 1024


class SettingsError(ConfigurationError):
    """An option, variable or flag that is unknown or has a wrong value."""


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


def available_cores() -> int:
    """The cores this process may use: its CPU affinity where the system tells, else all."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _most_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if descriptors == resource.RLIM_INFINITY else max(16, min(10_000, descriptors * 8 // 10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is told. Times are seconds, sizes are bytes."""

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0 for all IPv4 interfaces")
    port: int = _option(8000, "port to listen on; 0 takes a free one")
    unix: str = _option("", "path of a Unix socket to listen on, instead of host and port")
    backlog: int = _option(128, "connections the kernel may hold before they are accepted")
    log_level: str = _option("info", "debug, info, warning or error")

    cpu_workers: int = _option(available_cores(), "worker processes for the cpu routes")
    cpu_timeout: float = _option(30.0, "deadline of a cpu route that sets none; 0 for no deadline")
    queue_size: int = _option(1000, "jobs that may wait for a worker; more are answered 503")
    max_result_size: int = _option(64 * MiB, "largest result a worker may send back")
    shutdown_timeout: float = _option(10.0, "time a drain may take before what still runs is killed")

    max_request_line: int = _option(8 * KiB, "longest request line, else 414 (RFC 9112, 3 asks for at least 8000)")
    max_header_size: int = _option(32 * KiB, "longest header block, else 431")
    max_header_field: int = _option(8 * KiB, "longest single header field, else 431")
    max_headers: int = _option(100, "header fields in one request, else 431")
    max_body_size: int = _option(16 * MiB, "longest request body, else 413")
    max_requests: int = _option(10_000, "requests answered on one connection before it is closed")
    max_connections: int = _option(_most_connections(), "open connections; the oldest idle one makes room, else 503")
    header_timeout: float = _option(10.0, "time for a whole request head, from its first byte, else 408")
    body_timeout: float = _option(30.0, "time between two pieces of a body, else 408")
    keep_alive_timeout: float = _option(15.0, "time an idle connection is kept open")
    write_timeout: float = _option(30.0, "time a client may read nothing of its answer before it is cut off")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not kind:
                raise SettingsError(f"{field.name} takes {_a(kind)}, not {value!r} ({type(value).__name__})")
            if kind is not str and not value >= (1 if field.name in _AT_LEAST_ONE else 0):
                least = 1 if field.name in _AT_LEAST_ONE else 0
                raise SettingsError(f"{field.name} must be at least {least}, not {value!r}")
        if self.port > 65535:
            raise SettingsError(f"port takes a number from 0 to 65535, not {self.port}")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"log_level takes debug, info, warning or error, not {self.log_level!r}")


_AT_LEAST_ONE = frozenset({"backlog", "cpu_workers", "max_requests", "max_connections", "max_header_field"})


def _a(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text"}[kind]


def load_settings(
    overrides: Mapping[str, Any], environ: Mapping[str, str], service_options: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from all four places. SettingsError names the first one that is unknown or wrong."""
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    values: dict[str, Any] = dict(service_options or {})
    for variable, text in environ.items():
        if not variable.startswith("TINYSVC_"):
            continue
        name = variable.removeprefix("TINYSVC_").lower()
        if name not in fields:
            raise SettingsError(f"{variable} is no variable of tinysvc{_nearest(name, fields)}")
        kind: type = type(fields[name].default)
        try:
            values[name] = kind(text)
        except ValueError:
            raise SettingsError(f"{variable} takes {_a(kind)}, not {text!r}") from None
    values.update({name: value for name, value in overrides.items() if value is not None})
    for name in values:
        if name not in fields:
            raise SettingsError(f"{name!r} is no option of tinysvc{_nearest(name, fields)}")
    return Settings(**values)


def _nearest(name: str, names: Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {match[0]}?" if match else f"; it knows {', '.join(names)}"
