"""Every option and limit of a server, in one frozen table: default, variable, flag and meaning.

A value is looked up in this order: command line or `run(...)`, then `TINYSVC_<NAME>`, then `Service(...)`, then the
default here. Each field of a named pool is looked up separately: `--pools training:workers=4` does not change the queue
size of `Service(pools={"training": Pool(workers=1, queue_size=2)})`.
"""

from __future__ import annotations

import dataclasses
import re
import resource
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from .cores import available_cores
from .pool_settings import DEFAULT_POOL, Pool, merged_pool, option_of, read_pools
from .setting_values import SettingsError, check_value, did_you_mean, read_bool, wrong_value
from .units import KiB, MiB

DEFAULT_QUEUE_SIZE = 1000
"""Jobs that may wait: ten seconds of work for two workers at 20 ms a job. Further jobs get a 503 at once."""

DEFAULT_MAX_RESULT_SIZE = 64 * MiB
"""Four times the largest body. A result stays in memory until the client has read it."""

ROOT_PATH = re.compile(r"(?:/(?!\.\.?(?:/|$))[A-Za-z0-9._~-]{1,100}){1,16}")
"""A path of plain segments. Generated addresses begin with it, and `//host` would lead to another host."""


METRICS_PLACE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})|unix:(?P<unix>.+)|(?P<path>/[\w./~-]+)"
)
"""The values of the option `metrics`."""


GRPC_PLACE = re.compile(r"(?:(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):)?(?P<port>\d{1,5})|unix:(?P<unix>.+)")
"""The values of the option `grpc`."""


TRACES_PLACE = re.compile(r"otlp|https?://[^\s/?#]+[^\s?#]*")
"""The values of the option `traces`."""


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


def _default_max_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 10_000 if descriptors == resource.RLIM_INFINITY else max(16, min(10_000, descriptors * 8 // 10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a server. Times are in seconds, sizes in bytes."""

    host: str = _option(
        "127.0.0.1", "address to listen on, or a name for all its addresses; 0.0.0.0 for every IPv4 address"
    )
    port: int = _option(8000, "port to listen on; 0 for a free port")
    unix: str = _option("", "path of a Unix socket to listen on, instead of host and port")
    unix_mode: str = _option("", 'permissions of the Unix socket, as in "660"; if empty, the umask decides')
    backlog: int = _option(128, "connections the kernel may hold before they are accepted")
    ssl_cert: str = _option("", "file with the certificate (PEM, with its chain): serve HTTPS; SIGHUP reads it again")
    ssl_key: str = _option("", "file with the certificate's private key, if it is not in the same file")
    ssl_ca: str = _option(
        "", "file with the authorities of client certificates: a client without a certificate is refused"
    )
    proxy_headers: str = _option(
        "",
        'peers that are trusted to set Forwarded and X-Forwarded-*, as in "10.0.0.0/8 127.0.0.1 unix"; if empty, none',
    )
    root_path: str = _option(
        "", 'prefix that a proxy removes from each path, as in "/shop": generated addresses begin with it'
    )
    workers: int = _option(1, "server processes that share the port, each with its share of the CPU workers")
    reload: bool = _option(False, "serve the new version when the code changes: for development")
    strict: bool = _option(False, "a file of a served folder that cannot be served is an error, not a warning")
    docs: bool = _option(
        True, "serve /openapi.json, a document of all routes, and /docs, a page to try them; reflection over gRPC"
    )
    jobs_page: bool = _option(False, "serve /jobs, a page of all durable jobs; --reload serves it, too")
    dashboard: bool = _option(
        False, "serve /dashboard, a live page of routes, queues, workers, calls and errors, to clients on this machine"
    )
    dashboard_guard: str = _option(
        "", "name of an io resource that opens for each request of the dashboard, or refuses it; then others may see it"
    )
    log_level: str = _option("info", "debug, info, warning or error")
    access_log: bool = _option(False, "log each request: method, path, status, bytes, duration, client, request id")
    log_format: str = _option("text", "lines of the log: text, or json for one JSON object a line")
    metrics: str = _option(
        "",
        "serve metrics for Prometheus: on a port of their own, as in 127.0.0.1:9100, on a Unix socket, as in "
        "unix:/run/metrics.sock, or at a path of the service, as in /metrics; if empty, nothing is counted",
    )
    grpc: str = _option(
        "",
        "serve the routes by gRPC, too: on a port, as in 50051 or 0.0.0.0:50051, or on a Unix socket, as in "
        "unix:/run/grpc.sock; if empty, by HTTP only",
    )
    traces: str = _option(
        "",
        "send traces by OTLP over HTTP: to a collector, as in http://127.0.0.1:4318, or as the OTEL_EXPORTER_OTLP_ "
        "variables say, by the word otlp; if empty, no spans are recorded",
    )
    trace_sample: float = _option(
        1.0, "share of the requests that are traced, from 0 to 1, unless the caller has decided (traceparent)"
    )

    cpu_workers: int = _option(
        available_cores(), "worker processes for the cpu routes; 0 runs them in a thread, for debugging"
    )
    cpu_timeout: float = _option(30.0, "deadline of a cpu route without timeout=; 0 for no deadline")
    queue_size: int = _option(DEFAULT_QUEUE_SIZE, "jobs that may wait for a worker; more get a 503")
    max_jobs: int = _option(0, "jobs after which a worker is replaced; 0 for never")
    max_memory: int = _option(0, "bytes a worker may hold after a job (RSS) before it is replaced; 0 for any")
    memory_limit: int = _option(0, "bytes of address space a worker may have (RLIMIT_AS), else MemoryError; 0 for any")
    pools: Mapping[str, Pool | Executor] = _option(
        "", 'pools beside the default one, as in "training:workers=1,queue_size=2 gpu:workers=1"'
    )
    services: str = _option(
        "",
        'other services that handlers call, with their replicas, as in "shop=http://a:8001,http://b:8001 '
        'training=unix:/run/t.sock index=grpc://c:50051"',
    )
    services_ca: str = _option(
        "", "file with the authorities that https and grpcs replicas are checked against (PEM); if empty, the system's"
    )
    services_cert: str = _option("", "file with our certificate for https replicas that ask for one (PEM)")
    services_key: str = _option("", "file with the private key of services_cert, if it is not in the same file")
    call_timeout: float = _option(30.0, "time for a call to another service where nothing else limits it; 0 for any")
    jobs: str = _option(
        "jobs.db",
        "store of the durable jobs: a file on this machine's disk, or the postgresql:// address of a database; it is "
        "opened only where a route has @job_route",
    )
    models: str = _option(
        "models",
        "store of models and other artifacts: a folder, or the URL of an object store, as in s3://bucket/models; it is "
        "opened only where a resource takes an Artifact, or a handler takes Models",
    )
    models_interval: float = _option(
        1.0, "mean time between two looks at the aliases of the artifacts that are served; 0 for none"
    )
    models_keys: str = _option(
        "",
        "files with the public keys (ed25519, PEM) that are trusted, separated by spaces: then an artifact without a "
        "valid signature is refused; if empty, signatures are not checked",
    )
    models_signing_key: str = _option(
        "", "file with the private key (ed25519, PEM) that signs the versions that this process publishes"
    )
    models_cache: str = _option(
        "",
        "folder of the verified local copies of artifacts; if empty, .cache in a models folder, else a folder under "
        "the user's cache folder",
    )
    max_cache_size: int = _option(64 * MiB, "bytes of cached results of cpu routes with cache=")
    max_result_size: int = _option(DEFAULT_MAX_RESULT_SIZE, "largest result a worker may send back")
    drain_delay: float = _option(
        0.0,
        "time after SIGTERM in which the server still accepts connections while /readyz is 503, before it drains: "
        "as long as balancers need to notice",
    )
    shutdown_timeout: float = _option(10.0, "time of a drain before the remaining work is killed")

    max_request_line: int = _option(8 * KiB, "longest request line, else 414 (RFC 9112, 3 asks for at least 8000)")
    max_header_size: int = _option(32 * KiB, "longest header block, else 431")
    max_header_field: int = _option(8 * KiB, "longest single header field, else 431")
    max_headers: int = _option(100, "header fields in one request, else 431")
    max_body_size: int = _option(16 * MiB, "longest request body, else 413")
    max_body_memory: int = _option(
        1024 * MiB, "bytes of request bodies in memory at one time, over all connections; more get a 503"
    )
    max_requests: int = _option(10_000, "requests on one connection before it is closed")
    max_connections: int = _option(
        _default_max_connections(), "open connections; beyond it the oldest idle one is closed, else 503"
    )
    max_pipelined: int = _option(
        128 * KiB, "bytes received and held while a request is handled; then the server stops reading"
    )
    max_io_requests: int = _option(0, "io requests that run at one time; more get a 503; 0 for any number")
    max_background: int = _option(
        1000, "background tasks that run or wait; a request that adds more gets a 503; 0 for any number"
    )
    first_byte_timeout: float = _option(10.0, "time a new connection may be silent before it is closed")
    header_timeout: float = _option(10.0, "time for a whole request head, from its first byte, else 408")
    body_timeout: float = _option(30.0, "time between two pieces of a body, else 408")
    min_body_rate: int = _option(
        500, "lowest rate of a body in bytes a second, after its first 30 s, else 408; 0 for any"
    )
    compress: bool = _option(False, "compress responses for clients that accept it (gzip; zstd and br if installed)")
    max_message_size: int = _option(
        1 * MiB, "longest WebSocket message, after decompression, else the socket closes with 1009"
    )
    ping_interval: float = _option(20.0, "time between two pings of a WebSocket client; 0 for no pings")
    ping_timeout: float = _option(20.0, "time a WebSocket client may be silent after a ping before it is disconnected")
    keep_alive_timeout: float = _option(15.0, "time an idle connection is kept open")
    write_timeout: float = _option(30.0, "time a client may read nothing of its response before it is disconnected")
    half_close: bool = _option(
        False, "a client that ends only its sending side still gets its response, and has not disconnected"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "pools", read_pools(self.pools))
        object.__setattr__(self, "services", services_text(self.services))
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if kind is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif field.name != "pools":
                check_value(field.name, value, kind, 1 if field.name in _AT_LEAST_ONE else 0)
        if self.port > 65535:
            raise SettingsError(f"port takes a number from 0 to 65535, not {self.port}")
        if not re.fullmatch("[0-7]{0,4}", self.unix_mode):
            raise SettingsError(f"unix_mode takes octal digits, as in 660, not {self.unix_mode!r}")
        if self.metrics and not METRICS_PLACE.fullmatch(self.metrics):
            example = "as in 127.0.0.1:9100, unix:/run/metrics.sock or /metrics"
            raise SettingsError(f"metrics takes host:port, unix:path or a path, {example}, not {self.metrics!r}")
        self._check_grpc()
        if self.traces and not TRACES_PLACE.fullmatch(self.traces):
            raise SettingsError(f"traces takes otlp or a URL, as in http://127.0.0.1:4318, not {self.traces!r}")
        if not self.trace_sample <= 1:
            raise SettingsError(f"trace_sample takes a number from 0 to 1, not {self.trace_sample!r}")
        if self.root_path and not ROOT_PATH.fullmatch(self.root_path):
            example = "as in /shop, with no slash at its end"
            raise SettingsError(
                f"root_path takes a path of letters, digits and ._~-, {example}, not {self.root_path!r}"
            )
        if self.services_key and not self.services_cert:
            raise SettingsError("services_key needs a services_cert; name the file that holds the certificate")
        if (self.ssl_ca and not self.ssl_cert) or (self.ssl_key and not self.ssl_cert):
            raise SettingsError("ssl_key and ssl_ca need an ssl_cert; name the file that holds the certificate")
        if self.log_level.lower() not in ("debug", "info", "warning", "error"):
            raise SettingsError(f"log_level takes debug, info, warning or error, not {self.log_level!r}")
        if self.log_format not in ("text", "json"):
            raise SettingsError(f"log_format takes text or json, not {self.log_format!r}")

    def _check_grpc(self) -> None:
        place = GRPC_PLACE.fullmatch(self.grpc)
        if self.grpc and (place is None or int(place["port"] or 0) > 65535):
            example = "as in 50051, 0.0.0.0:50051 or unix:/run/grpc.sock"
            raise SettingsError(f"grpc takes a port, host:port or unix:path, {example}, not {self.grpc!r}")
        if place is not None and place["unix"] and self.workers > 1:
            raise SettingsError(
                f"grpc is {self.grpc}, and {self.workers} server processes cannot share a Unix socket for gRPC; use "
                "workers=1, or a port, as in 127.0.0.1:50051"
            )

    def pool(self, name: str) -> dict[str, Any]:
        """The fields of the pool: its own, else those of the default one."""
        default = {field.name: getattr(self, option_of(field.name)) for field in dataclasses.fields(Pool)}
        own = self.pools.get(name)
        return default | (own.given() if isinstance(own, Pool) else {})


_AT_LEAST_ONE = frozenset(
    {"backlog", "workers", "max_requests", "max_connections", "max_header_field", "max_pipelined"}
)


def services_text(services: object) -> object:
    """A mapping of services, each with its address or a list of addresses, as the text of the flag."""
    if not isinstance(services, Mapping):
        return services
    replicas = {name: [found] if isinstance(found, str) else list(found) for name, found in services.items()}
    return " ".join(f"{name}={','.join(map(str, found))}" for name, found in replicas.items())


def load_settings(
    overrides: Mapping[str, Any], environ: Mapping[str, str], service_options: Mapping[str, Any] | None = None
) -> Settings:
    """Settings from all four sources. SettingsError names the first value that is unknown or wrong."""
    values: dict[str, Any] = {}
    pools: dict[str, Pool | Executor] = {}
    for source in (service_options or {}, _variables(environ), overrides):
        values.update({name: value for name, value in source.items() if value is not None})
        for name, pool in read_pools(source.get("pools") or "").items():
            if name == DEFAULT_POOL and isinstance(pool, Pool):  # the server's own options are its fields
                values.update({option_of(field): value for field, value in pool.given().items()})
                pools.pop(name, None)
            else:
                pools[name] = merged_pool(pools.get(name), pool)
    for name in values:
        if name not in _FIELDS:
            raise SettingsError(f"{name!r} is no option of tinysvc{did_you_mean(name, _FIELDS)}")
    try:
        return Settings(**values | {"pools": pools})
    except SettingsError as error:
        option = str(error).partition(" ")[0]  # all these sentences begin with the option
        origin = origins({}, environ, service_options or {}).get(option)
        if origin is None or overrides.get(option) is not None:
            raise  # the user knows the command line
        raise SettingsError(f"{error} ({origin})") from None


def origins(
    overrides: Mapping[str, Any], environ: Mapping[str, str], service_options: Mapping[str, Any]
) -> dict[str, str]:
    """The sources of all values that are not defaults; for pools, every source that configures one."""
    found: dict[str, str] = {}
    sources = {"Service(...)": service_options, "": _variables(environ), "command line": overrides}
    for origin, source in sources.items():
        for name, value in source.items():
            if value is not None and value != {}:
                source_name = origin or _variable(name)
                is_further = name == "pools" and name in found
                found[name] = f"{found[name]}, {source_name}" if is_further else source_name
    return found


_FIELDS = {field.name: field for field in dataclasses.fields(Settings)}


def _variable(name: str) -> str:
    return f"TINYSVC_{name.upper()}"


def _variables(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable, text in environ.items():
        if not variable.startswith("TINYSVC_"):
            continue
        name = variable.removeprefix("TINYSVC_").lower()
        if name not in _FIELDS:
            raise SettingsError(f"{variable} is no variable of tinysvc{did_you_mean(name, _FIELDS, _variable)}")
        kind: type = type(_FIELDS[name].default)
        try:
            values[name] = read_bool(text) if kind is bool else kind(text)
        except ValueError:
            raise SettingsError(f"{variable} {wrong_value(kind, text)}") from None
    return values
