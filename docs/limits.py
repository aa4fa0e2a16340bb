"""Write docs/limits.md from Settings and the constants in the source: `python docs/limits.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from options import COMPUTED, shown

from tinysvc.binding.item_streams import MAX_LINE
from tinysvc.binding.replies import MAX_ITEM
from tinysvc.client.rpc_channel import KEEP_ALIVE, PING_TIMEOUT
from tinysvc.client.rpc_replica import MAX_CALLS, SILENCE
from tinysvc.core.form_data import MAX_PARTS, SPOOL_SIZE
from tinysvc.core.log_records import MAX_EXTRA, MAX_EXTRA_FIELDS
from tinysvc.core.multipart_reader import MAX_BOUNDARY, MAX_PART_HEADER, MAX_PART_HEADERS, MAX_PREAMBLE
from tinysvc.core.query import MAX_QUERY_FIELDS
from tinysvc.core.settings import Settings
from tinysvc.dashboard.live import MAX_VIEWERS
from tinysvc.dashboard.own_process import ERRORS as MAX_LISTED_ERRORS
from tinysvc.grpc.message_type import MAX_DEPTH as MAX_MESSAGE_DEPTH
from tinysvc.grpc.rpc_errors import MAX_FAULTS
from tinysvc.grpc.rpc_options import IDLE, MAX_PENDING, MAX_STREAMS, MIN_PING_INTERVAL
from tinysvc.http import LINGER
from tinysvc.jobs.postgres.store import LEASE, PATIENCE
from tinysvc.jobs.requests.preferences import MAX_WAIT
from tinysvc.jobs.sqlite.thread import LOCK_WAIT
from tinysvc.jobs.states import KEEP_EXPIRED, KEPT_ATTEMPTS
from tinysvc.models.manifest import MAX_FILES
from tinysvc.models.pickles import MAX_DEPTH
from tinysvc.models.retention import KEPT_ENTRIES
from tinysvc.models.storage import MAX_DOCUMENT
from tinysvc.models.unpacking import MAX_UNPACKED
from tinysvc.pool.job_reply import STREAM_HIGH_WATER
from tinysvc.pool.state import START_LIMIT
from tinysvc.pool.swaps import HOLD_LIMIT
from tinysvc.pool.worker_logs import LOG_RATE, MAX_LOG_TEXT
from tinysvc.runtime.batching import MAX_BATCH_BYTES
from tinysvc.runtime.call_context import MAX_HOPS
from tinysvc.runtime.call_failures import MAX_PROBLEM
from tinysvc.runtime.job import MAX_PROGRESS, REPORT_PAUSE
from tinysvc.runtime.shadows import MOST_KILLS
from tinysvc.runtime.swap_memory import CRASHES, LONGEST_PAUSE, WINDOW
from tinysvc.runtime.tracing import LAST_SENDING
from tinysvc.runtime.worker_tracing import SPAN_RATE
from tinysvc.service.job_options import MAX_PAUSE
from tinysvc.service.job_verbs import MAX_AFTER, MAX_KEY, MAX_LIMIT, MAX_PRIORITY
from tinysvc.telemetry.instruments import MAX_SERIES
from tinysvc.telemetry.log_format import MAX_MESSAGE
from tinysvc.telemetry.log_writer import MAX_QUEUED as MAX_QUEUED_LINES
from tinysvc.telemetry.span_export import MAX_WAITING
from tinysvc.telemetry.spans import MAX_ITEMS, MAX_TEXT
from tinysvc.telemetry.value_file import SIZE
from tinysvc.web.cookies import MAX_SIZE
from tinysvc.web.websocket_protocol import GRACE, MAX_QUEUED, MAX_QUEUED_SIZE
from tinysvc.wire.bodies import MAX_DISCARD
from tinysvc.wire.chunked import MAX_ALL_EXTENSIONS, MAX_EXTENSIONS
from tinysvc.wire.ranges import MAX_RANGES
from tinysvc.wire.sending import HEARTBEAT

HEAD = """\
# Limits

Everything that a client can make bigger, longer or more numerous has a limit. The tables show each limit, and what
happens beyond it. An option is an argument of `Service(...)` and of `tinysvc.run(...)`, a flag and a variable:
`max_body_size` is `--max-body-size` and `TINYSVC_MAX_BODY_SIZE`. Sizes are in bytes, times in seconds. 0 means "no
limit" only where a line says "0 for ..."; elsewhere 0 means that nothing is allowed, or no time, or it is refused at
start-up.

A limit does not depend on how the bytes are divided into segments, and applies to incomplete messages, too. The times
of a connection are checked once a second: no connection is cut off early, and none more than two seconds late. With
`--workers`, each server process has its own limits; only the CPU workers are divided between the processes. Each pool
has its own queue.

A limit without an option ("-") is a constant. This page is written by `python docs/limits.py`; [options.md](options.md)
also lists the options that are not limits.

"""

BESIDE = """\
## Other servers

The defaults of nginx 1.22.1 (Debian 12's, with its later fixes), Node 20.20, Go 1.22 (net/http) and uvicorn 0.54 (with
httptools 0.9), measured or from their documentation and source. "none" is no limit; "-" means that the question does
not arise there. Limits of jobs and workers have no counterpart.

| limit | tinysvc | nginx | Node | Go | uvicorn |
|---|---|---|---|---|---|
"""

FLAGS = """
## Flags and variables

| option | flag | variable |
|---|---|---|
"""


class Limit(NamedTuple):
    """One line of the tables. `option` is a field of Settings, or empty where `value` is a constant."""

    what: str
    option: str
    passed: str
    why: str
    others: str = ""
    """The limits of nginx, Node, Go and uvicorn, as cells of a table; empty if they have none of this kind."""
    value: str = ""
    unit: str = ""

    @property
    def default(self) -> str:
        if not self.option:
            return self.value
        default = Settings.__dataclass_fields__[self.option].default
        if default == 0:
            return self.what.partition("; 0 for ")[2]
        return (COMPUTED.get(self.option) or shown(self.option, default)) + self.unit


GROUPS = {
    "A request": [
        Limit(
            "request line",
            "max_request_line",
            "414",
            "RFC 9112, 3 asks for at least 8000",
            "8 KiB | 16 KiB with fields | 1 MiB with fields | 64 KiB",
        ),
        Limit("header block", "max_header_size", "431", "nginx's", "4 x 8 KiB | 16 KiB | 1 MiB | none"),
        Limit("header field", "max_header_field", "431", "nginx's, Apache's", "8 KiB | - | - | none"),
        Limit(
            "header fields",
            "max_headers",
            "431",
            "Apache's, gunicorn's and cowboy's; a browser sends 15",
            "1000 | 1000, more are dropped | none | none",
        ),
        Limit(
            "fields of a query",
            "",
            "400, where they are parsed",
            "otherwise `a&` 100,000 times is a cheap attack",
            value=str(MAX_QUERY_FIELDS),
        ),
        Limit(
            "body",
            "max_body_size",
            "413",
            "a photograph; a route can set its own: `max_body_size=` in its decorator",
            "1 MiB | none | none | none",
        ),
        Limit(
            "extensions of one chunk",
            "",
            "400",
            "only attackers use them (CVE-2023-39326)",
            "none | 16 KiB | 4 KiB | none",
            f"{MAX_EXTENSIONS} bytes",
        ),
        Limit(
            "extensions of all chunks",
            "",
            "400",
            "same",
            "none | none | 16 KiB + 2 x body | none",
            shown("_size", MAX_ALL_EXTENSIONS),
        ),
        Limit(
            "trailers",
            "",
            "431",
            "trailers are header fields",
            "none | 16 KiB | 4 KiB | none",
            "as header block and header fields",
        ),
        Limit(
            "unread body that is discarded",
            "",
            "the connection closes after the response",
            "Go's",
            "body limit | none | 256 KiB | none",
            shown("_size", MAX_DISCARD),
        ),
    ],
    "Time": [
        Limit("TLS handshake", "header_timeout", "closed", "as for a head", "60 s | 120 s | none | 60 s"),
        Limit(
            "first byte on a new connection",
            "first_byte_timeout",
            "closed",
            "as for a head",
            "60 s | 60 s | none | none",
        ),
        Limit(
            "the head, from its first byte",
            "header_timeout",
            "408",
            "a head is one or two packets; a slow head is an attack (slowloris)",
            "60 s | 60 s | none | none",
        ),
        Limit(
            "the next piece of a body",
            "body_timeout",
            "408",
            "a phone in a tunnel reconnects sooner",
            "60 s | 300 s for all of it | none | none",
        ),
        Limit(
            "rate of a body, after that time; 0 for any",
            "min_body_rate",
            "408",
            "that of Apache's mod_reqtimeout; Kestrel has 240 bytes/s",
            "none | none | none | none",
            unit=" bytes/s",
        ),
        Limit("idle keep-alive", "keep_alive_timeout", "closed", "between nginx and Node", "75 s | 5 s | none | 5 s"),
        Limit(
            "a client that reads nothing of its response",
            "write_timeout",
            "disconnected",
            "half of nginx's",
            "60 s | none | none | none",
        ),
        Limit(
            "reading after a refusal",
            "",
            "closed",
            "so that the client receives the refusal; cowboy: 1 s",
            "5 s, 30 s in all | none | 0.5 s | none",
            f"{LINGER:g} s",
        ),
    ],
    "Connections": [
        Limit(
            "open connections",
            "max_connections",
            "the oldest idle connection is closed; without one, 503; above another tenth, closed without a response",
            "about 6 KiB each",
            "512 | none | none | none",
        ),
        Limit(
            "connections that wait to be accepted",
            "backlog",
            "the kernel makes the client try again, or refuses it",
            "aiohttp's; asyncio accepts this many in one turn",
            "511 | 511 | somaxconn | 2048",
        ),
        Limit(
            "requests on one connection",
            "max_requests",
            "closed after the last response",
            "lets a load balancer distribute clients again",
            "1000 | none | none | none",
        ),
        Limit(
            "pipelined bytes in memory",
            "max_pipelined",
            "the server stops reading; the client keeps the rest",
            "twice the size of one read",
            "one buffer | none | 4 KiB | one read",
        ),
        Limit(
            "time in which a server that ends still accepts connections; 0 for none",
            "drain_delay",
            "the drain begins",
            "0: only a balancer that needs it is worth a slower end; Kubernetes needs 5 to 15 s",
            "none | none | none | none",
        ),
        Limit(
            "time for running work when the server drains",
            "shutdown_timeout",
            "connections are closed, jobs killed",
            "service managers wait 10 to 30 s",
            "none | none | none | none",
        ),
    ],
    "Work": [
        Limit(
            "bodies in memory, of all connections",
            "max_body_memory",
            "503 with Retry-After",
            "a service has 2 GiB or more; a small body that arrives together with its head does not count",
            "on disk | none | none | none",
        ),
        Limit(
            "running io requests; 0 for any",
            "max_io_requests",
            "503 with Retry-After",
            "they wait for other services, and only the author knows how many are too many",
            "- | none | none | none",
        ),
        Limit(
            "background tasks; 0 for any",
            "max_background",
            "503 with Retry-After",
            "they wait for other services, and their number grows unnoticed",
            "- | none | none | none",
        ),
        Limit("server processes", "workers", "-", "one event loop is usually enough", "1 | 1 | 1 | 1"),
        Limit(
            "worker processes of the default pool",
            "cpu_workers",
            "jobs wait",
            "more workers would only share the cores",
        ),
        Limit(
            "jobs that wait for a worker",
            "queue_size",
            "503 with Retry-After",
            "clients give up before a longer wait ends",
        ),
        Limit(
            "deadline of a cpu route; 0 for none",
            "cpu_timeout",
            "504, and the worker is killed; 503 if the job has not started",
            "similar to a proxy's; `timeout=` in the decorator",
        ),
        Limit("result of a job", "max_result_size", "500", "stream longer results"),
        Limit(
            "unread bytes of a worker's stream",
            "",
            "the generator waits",
            "one slice of a big body",
            value=shown("_size", STREAM_HIGH_WATER),
        ),
        Limit(
            "bodies of one batch",
            "",
            "the rest goes into the next batch",
            "they are joined on the event loop",
            value=shown("_size", MAX_BATCH_BYTES),
        ),
        Limit(
            "address space of a worker; 0 for any",
            "memory_limit",
            "MemoryError in the handler",
            "only the author knows how much a model needs",
        ),
        Limit("memory kept after a job; 0 for any", "max_memory", "the worker is replaced", "same"),
        Limit("jobs of one worker; 0 for any", "max_jobs", "the worker is replaced", "for libraries that leak"),
        Limit(
            "time until a worker is ready; in a swap, also time to load the program",
            "",
            "it is killed; at the start the server does not start, in a swap the old version serves on",
            "models are large, but one that takes ten minutes never ends",
            value=f"{START_LIMIT:g} s",
        ),
        Limit(
            "time for jobs on a version that has been swapped, while the next swap waits",
            "",
            "their workers are killed",
            "at most two versions are in memory, and a stream without end must not block swaps",
            value=f"{HOLD_LIMIT:g} s",
        ),
    ],
    "Calls to other services": [
        Limit(
            "time for a call to another service; 0 for any",
            "call_timeout",
            "504, and the callee is told to stop",
            "it applies only where neither a caller, nor a route, nor a block of code sets a deadline",
        ),
        Limit(
            "services that a request may pass",
            "",
            "508 for the next one",
            "services that call each other in a circle; a deep system has five or six",
            value=str(MAX_HOPS),
        ),
        Limit(
            "error response of a callee",
            "",
            "its details are not read",
            "a problem document",
            value=shown("_size", MAX_PROBLEM),
        ),
        Limit("item of a stream", "", "502", "as the largest body", value=shown("_size", MAX_ITEM)),
    ],
}
GROUPS["Durable jobs"] = [
    Limit(
        "jobs of a route that wait",
        "",
        "503 with Retry-After",
        "the disk is large, and only the author knows how many are too many: `max_waiting=`",
        value="any",
    ),
    Limit(
        "arguments of a durable job",
        "max_body_size",
        "413",
        "they are a request body, and are kept on the disk",
    ),
    Limit(
        "result, and saved value, of a durable job",
        "max_result_size",
        "the job fails, `unencodable`; `job.save` raises ValueError",
        "write a larger result to a file or a bucket, and return its name",
    ),
    Limit(
        "values of `job.progress` as JSON",
        "",
        "ValueError in the handler",
        "each watcher gets each report",
        value=shown("_size", MAX_PROGRESS),
    ),
    Limit(
        "reports of progress",
        "",
        "the newest one replaces those before",
        "a smooth bar",
        value=f"{1 / REPORT_PAUSE:g} a second",
    ),
    Limit(
        "attempts in the document of a job",
        "",
        "the oldest are not listed",
        "a job that is retried for years must not grow",
        value=str(KEPT_ATTEMPTS),
    ),
    Limit("jobs on one page of a list", "", "422", "more than a person reads", value=str(MAX_LIMIT)),
    Limit("`Prefer: wait`", "", "202 after this time", "proxies give up sooner", value=f"{MAX_WAIT:g} s"),
    Limit("`Idempotency-Key`", "", "400", "Stripe's", value=f"{MAX_KEY} characters"),
    Limit("`Job-Priority`", "", "400", "100 steps each way are enough", value=f"-{MAX_PRIORITY} to {MAX_PRIORITY}"),
    Limit(
        "`Job-After`, and `after=`",
        "",
        "400",
        "a later start is a mistake in the unit",
        value=f"{MAX_AFTER / 366 / 86400:g} years",
    ),
    Limit(
        "pause between two attempts",
        "",
        "it does not grow further",
        "a dependency that is repaired is used within the hour",
        value=f"{MAX_PAUSE:g} s",
    ),
    Limit(
        "another program's lock on the file of the store",
        "",
        "503 with Retry-After",
        "a backup holds it for a moment",
        value=f"{LOCK_WAIT:g} s",
    ),
    Limit(
        "a store that does not answer: the keeper dies, PostgreSQL restarts",
        "",
        "503 with Retry-After",
        "another keeper takes over within two seconds",
        value=f"{PATIENCE:g} s",
    ),
    Limit(
        "lease of a server on its jobs (PostgreSQL)",
        "",
        "the server kills them; another one starts them again",
        "longer than a restart of PostgreSQL",
        value=f"{LEASE:g} s",
    ),
    Limit(
        "memory of jobs whose retention is over",
        "",
        "404 instead of 410",
        "a client that asks later than this has forgotten, too",
        value=f"{KEEP_EXPIRED / 86400:g} days",
    ),
]
GROUPS["Models and other artifacts"] = [
    Limit(
        "mean time between two looks at the aliases; 0 for none",
        "models_interval",
        "a new version is served so much later",
        "one small request to the store for each alias; the times are random, so that servers do not ask together",
    ),
    Limit(
        "crashes of a new version, more than the old one had",
        "",
        "back to the old version",
        "one crash may be the fault of its request",
        value=f"{CRASHES} in {WINDOW:g} s",
    ),
    Limit(
        "pause between two attempts to fetch a version",
        "",
        "it does not grow further",
        "a store that is back is noticed soon",
        value=f"{LONGEST_PAUSE:g} s",
    ),
    Limit(
        "workers that the shadows of one candidate may end",
        "",
        "the candidate gets no more shadows",
        "each costs the pool a new worker",
        value=str(MOST_KILLS),
    ),
    Limit("files of a version", "", "refused", "their manifest is read whole", value=f"{MAX_FILES:,}"),
    Limit(
        "a manifest, or an entry of an alias", "", "not read", "room for all files", value=shown("_size", MAX_DOCUMENT)
    ),
    Limit(
        "containers in containers, in the search for pickles",
        "",
        "the file counts as a pickle",
        "models are not packed more often",
        value=str(MAX_DEPTH),
    ),
    Limit(
        "bytes that are unpacked of one file, in the search for pickles",
        "",
        "the file counts as a pickle",
        "it takes about ten seconds",
        value=shown("_size", MAX_UNPACKED),
    ),
    Limit(
        "entries of an alias",
        "",
        "a sweep removes the oldest ones",
        "its history, and what rollbacks restore",
        value=str(KEPT_ENTRIES),
    ),
]
GROUPS["Forms, files and sockets"] = [
    Limit(
        "parts of a multipart form",
        "",
        "413",
        "includes fields; their size is limited by max_body_size; empty parts are a cheap attack",
        value=f"{MAX_PARTS:,}",
    ),
    Limit("bytes before the first boundary", "", "400", "they are ignored", value=shown("_size", MAX_PREAMBLE)),
    Limit(
        "one header line of a part", "", "413", "a field name and a file name", value=shown("_size", MAX_PART_HEADER)
    ),
    Limit("header lines of a part", "", "413", "RFC 7578 defines three", value=str(MAX_PART_HEADERS)),
    Limit("boundary of a form", "", "400", "RFC 2046, 5.1.1", value=f"{MAX_BOUNDARY} characters"),
    Limit(
        "files of a form in memory", "", "they go to disk", "a thumbnail, not a film", value=shown("_size", SPOOL_SIZE)
    ),
    Limit("ranges in one request", "", "the whole file, 200", "readers ask for one or two", value=str(MAX_RANGES)),
    Limit(
        "a WebSocket message, also after decompression",
        "max_message_size",
        "closed with 1009",
        "as the websockets library",
    ),
    Limit(
        "WebSocket messages that wait for their handler", "", "the server stops reading", "same", value=str(MAX_QUEUED)
    ),
    Limit(
        "bytes of these messages",
        "",
        "the server stops reading",
        "one message may be longer",
        value=shown("_size", MAX_QUEUED_SIZE),
    ),
    Limit(
        "line of a stream of requests (NDJSON)",
        "",
        "413",
        "as a WebSocket message",
        value=shown("_size", MAX_LINE),
    ),
    Limit("time between pings; 0 for none", "ping_interval", "a ping", "as the websockets library; proxies wait 60 s"),
    Limit("silence after a ping", "ping_timeout", "disconnected", "same"),
    Limit(
        "closing handshake of a WebSocket",
        "",
        "disconnected, and the handler is cancelled",
        "a browser responds to a close at once",
        value=f"{GRACE:g} s",
    ),
    Limit("silence of an event stream", "", "a comment is sent", "WHATWG HTML, 9.2.7", value=f"{HEARTBEAT:g} s"),
    Limit("cached results", "max_cache_size", "the least recently used result is dropped", "little compared to models"),
    Limit("a cookie's name and value", "", "ValueError", "browsers drop longer ones", value=f"{MAX_SIZE:,} bytes"),
]
GROUPS["gRPC"] = [
    Limit("message of a request", "max_body_size", "RESOURCE_EXHAUSTED", "as a body over HTTP"),
    Limit("messages of all requests", "max_body_memory", "UNAVAILABLE, before the message is read", "as over HTTP"),
    Limit(
        "calls that run; connections", "max_connections", "UNAVAILABLE; closed", "over HTTP a connection has one call"
    ),
    Limit("metadata of a request", "max_header_size", "RESOURCE_EXHAUSTED", "as the headers over HTTP"),
    Limit(
        "calls of one connection at a time",
        "",
        "its client queues them; UNAVAILABLE for calls that it sends before the server has freed the ones that ended",
        "a client of grpcio has one connection for all its calls; a client that resets streams at once fills no memory",
        value=f"{MAX_STREAMS:,}",
    ),
    Limit(
        "calls that have arrived while the server is busy",
        "",
        "CANCELLED",
        "they wait; grpcio's own limit, about 1,000, ends the calls of all clients when a few have many",
        value=f"{MAX_PENDING:,}",
    ),
    Limit("connection without a call", "", "closed in order (GOAWAY)", "clients connect again", value=f"{IDLE:g} s"),
    Limit(
        "time between two pings of a client",
        "",
        "the third ping that is too early closes the connection",
        "gRPC's least time between two pings of a client",
        value=f"{MIN_PING_INTERVAL:g} s",
    ),
    Limit(
        "a call to another service: calls of one connection at a time",
        "",
        "they wait",
        "below the limit of servers, which free a call a moment after its reply",
        value=f"{MAX_CALLS:,}",
    ),
    Limit(
        "a call to another service: silence of its connection",
        "",
        "the connection is closed, and its calls fail",
        "a host that is gone sends nothing",
        value=f"{KEEP_ALIVE + PING_TIMEOUT:g} s",
    ),
    Limit(
        "the same: no response to any call, while calls are late",
        "",
        "the replica is avoided until it responds",
        "a slow handler alone is no failure",
        value=f"{SILENCE:g} s",
    ),
    Limit(
        "messages inside each other",
        "",
        "INVALID_ARGUMENT; a result is an error",
        "the limit of protobuf's parsers in all languages",
        value=str(MAX_MESSAGE_DEPTH),
    ),
    Limit(
        "faults in the details of a status",
        "",
        "the rest is left out",
        "clients take 8 KiB of metadata by default",
        value=str(MAX_FAULTS),
    ),
]
GROUPS["Logs"] = [
    Limit(
        "`extra=` fields of a record",
        "",
        "not written; `extra_dropped` counts them",
        "a whole object is one field",
        value=str(MAX_EXTRA_FIELDS),
    ),
    Limit("`extra=` of a record", "", "the value is cut", "as its message", value=shown("_size", MAX_EXTRA)),
    Limit(
        "message of a JSON line",
        "",
        "cut",
        "collectors cut lines at 256 KiB or less",
        value=f"{MAX_MESSAGE:,} characters",
    ),
    Limit(
        "message or traceback of a worker's record",
        "",
        "cut",
        "it passes through the event loop",
        value=f"{MAX_LOG_TEXT:,} characters",
    ),
    Limit(
        "records of a worker",
        "",
        "dropped, counted and reported",
        "the event loop writes them",
        value=f"{LOG_RATE} a second",
    ),
    Limit(
        "lines that wait for the reader of the log",
        "",
        "dropped, counted and reported",
        "a minute of a busy service",
        value=shown("_size", MAX_QUEUED_LINES),
    ),
]
GROUPS["Metrics"] = [
    Limit(
        "series of one metric",
        "",
        "further counts share a series with the labels _OTHER",
        "100 routes, 4 methods and 5 statuses fit",
        value=f"{MAX_SERIES:,}",
    ),
    Limit(
        "memory of a worker for its metrics",
        "",
        "further series are not counted, and the log says so",
        "6,000 counters, or 2,500 histograms of 15 buckets",
        value=shown("_size", SIZE),
    ),
]
GROUPS["Traces"] = [
    Limit(
        "spans that wait for the collector",
        "",
        "dropped, counted, and reported in the log once a minute",
        "some ten megabytes: seconds of a busy process",
        value=f"{MAX_WAITING:,}",
    ),
    Limit(
        "spans that a worker sends in a second",
        "",
        "dropped; the next span says how many",
        "each takes the event loop some 20 us",
        value=f"{SPAN_RATE:,}",
    ),
    Limit("attributes, events and links of a span", "", "left out", "as OpenTelemetry", value=str(MAX_ITEMS)),
    Limit("characters of a name or a text in a span", "", "cut", "a stack of 40 calls fits", value=f"{MAX_TEXT:,}"),
    Limit(
        "sending the last spans when the server ends",
        "",
        "left behind, and the log says so",
        "a collector takes milliseconds",
        value=f"{LAST_SENDING:g} s",
    ),
]
GROUPS["Dashboard"] = [
    Limit("open pages", "", "503", "a team in front of its screens", value=str(MAX_VIEWERS)),
    Limit(
        "errors that it lists",
        "",
        "the oldest one is dropped",
        "a page of them",
        value=f"{MAX_LISTED_ERRORS} a process",
    ),
]
LIMITS = [limit for limits in GROUPS.values() for limit in limits]


def page() -> str:
    parts = [HEAD]
    for title, limits in GROUPS.items():
        parts += [f"## {title}\n\n| limit | default | option | beyond it | why this value |\n|---|---|---|---|---|\n"]
        for limit in limits:
            option = f"`{limit.option}`" if limit.option else "-"
            parts.append(f"| {limit.what} | {limit.default} | {option} | {limit.passed} | {limit.why} |\n")
        parts.append("\n")
    parts.append(BESIDE)
    for limit in LIMITS:
        if limit.others:
            what, default = limit.what.partition(";")[0], limit.default.partition(", or")[0]
            parts.append(f"| {what} | {default} | {limit.others} |\n")
    parts.append(FLAGS)
    for option in dict.fromkeys(limit.option for limit in LIMITS if limit.option):
        parts.append(f"| `{option}` | `--{option.replace('_', '-')}` | `TINYSVC_{option.upper()}` |\n")
    return "".join(parts)


def missing() -> set[str]:
    """Options that are numbers, so limits, and have no line in a table."""
    numbers = {field.name for field in dataclasses.fields(Settings) if type(field.default) in (int, float)}
    return numbers - {"port", "trace_sample"} - {limit.option for limit in LIMITS}


if __name__ == "__main__":
    (Path(__file__).parent / "limits.md").write_text(page())
