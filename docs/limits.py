"""Write docs/limits.md from Settings and the constants of the engine: `python docs/limits.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from options import COMPUTED, shown

from tinysvc.core.form_data import MAX_PARTS, SPOOL_SIZE
from tinysvc.core.multipart_reader import MAX_BOUNDARY, MAX_PART_HEADER, MAX_PART_HEADERS, MAX_PREAMBLE
from tinysvc.core.query import MAX_QUERY_FIELDS
from tinysvc.core.settings import Settings
from tinysvc.http import HEARTBEAT, LINGER
from tinysvc.pool.dispatcher import STREAM_HIGH_WATER
from tinysvc.runtime.batching import MAX_BATCH_BYTES
from tinysvc.web.cookies import MAX_SIZE
from tinysvc.web.websocket_protocol import GRACE, MAX_QUEUED, MAX_QUEUED_SIZE
from tinysvc.wire.bodies import MAX_DISCARD
from tinysvc.wire.chunked import MAX_ALL_EXTENSIONS, MAX_EXTENSIONS
from tinysvc.wire.ranges import MAX_RANGES

HEAD = """\
# Limits

Everything that a client can make bigger, longer or more has a bound; the tables say how much is allowed and what
happens beyond it. An option is an argument of `Service(...)` and of `tinysvc.run(...)`, a flag and a variable:
`max_body_size` is `--max-body-size` and `TINYSVC_MAX_BODY_SIZE`, given in bytes, or in seconds if it is a time. Only
where a line says "0 for ..." does 0 mean that there is no limit: elsewhere it means that nothing is allowed, or no
time, or it is refused at the start.

A limit holds however the bytes are cut, and for what is not complete yet as for what is. The times of a connection are
looked at once a second: nothing is cut off early, and something at most two seconds late. With `--workers`, each server
process has these limits for itself; only the CPU workers are shared out. Each pool has a queue of its own.

What is "-" in the column of options is a constant. This page is written by `python docs/limits.py`;
[options.md](options.md) lists the options that are no limits, too.

"""

BESIDE = """\
## Beside others

The defaults of nginx 1.22.1 (Debian 12's, with its later fixes), Node 20.20, Go 1.22 (net/http) and uvicorn 0.54 (with
httptools 0.9), as measured or from their documentation and source. "none" is no limit, "-" a question that does not
arise there. What is about jobs and their workers has no counterpart.

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
    """What nginx, Node, Go and uvicorn have, as the cells of a table; empty if they have nothing like it."""
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
            "without it, `a&` 100,000 times is a cheap attack",
            value=str(MAX_QUERY_FIELDS),
        ),
        Limit(
            "body",
            "max_body_size",
            "413",
            "a photograph; a route that expects more says so: `max_body_size=` in its decorator",
            "1 MiB | none | none | none",
        ),
        Limit(
            "extensions of one chunk",
            "",
            "400",
            "nobody uses them but attackers (CVE-2023-39326)",
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
            "they are fields",
            "none | 16 KiB | 4 KiB | none",
            "as header block and header fields",
        ),
        Limit(
            "unread body that is swallowed",
            "",
            "the connection closes behind the answer",
            "Go's",
            "body limit | none | 256 KiB | none",
            shown("_size", MAX_DISCARD),
        ),
    ],
    "Its time": [
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
            "a head is one packet or two; slow ones are an attack (slowloris)",
            "60 s | 60 s | none | none",
        ),
        Limit(
            "the next piece of a body",
            "body_timeout",
            "408",
            "a phone in a tunnel comes back sooner",
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
            "a client that reads nothing of its answer",
            "write_timeout",
            "cut off",
            "half of nginx's",
            "60 s | none | none | none",
        ),
        Limit(
            "reading on behind a refusal",
            "",
            "closed",
            "so that the client sees it; cowboy: 1 s",
            "5 s, 30 s in all | none | 0.5 s | none",
            f"{LINGER:g} s",
        ),
    ],
    "Connections": [
        Limit(
            "open connections",
            "max_connections",
            "the oldest idle one is closed; without one, 503; a tenth more, cut off",
            "some 6 KiB each",
            "512 | none | none | none",
        ),
        Limit(
            "waiting to be accepted",
            "backlog",
            "the kernel lets the client try again, or refuses it",
            "aiohttp's; asyncio accepts so many in one turn",
            "511 | 511 | somaxconn | 2048",
        ),
        Limit(
            "requests on one connection",
            "max_requests",
            "closed behind the last answer",
            "lets a load balancer spread anew",
            "1000 | none | none | none",
        ),
        Limit(
            "pipelined bytes that are held",
            "max_pipelined",
            "reading pauses, the client keeps the rest",
            "twice what one read brings",
            "one buffer | none | 4 KiB | one read",
        ),
        Limit(
            "time for what is under way at the end",
            "shutdown_timeout",
            "connections are cut off, jobs killed",
            "what service managers wait is 10 to 30 s",
            "none | none | none | none",
        ),
    ],
    "Work": [
        Limit(
            "bodies held in memory, of all connections",
            "max_body_memory",
            "503 with Retry-After",
            "a service has 2 GiB or more; a small body that came whole with its head is not counted",
            "on disk | none | none | none",
        ),
        Limit(
            "io requests at work; 0 for any",
            "max_io_requests",
            "503 with Retry-After",
            "they wait for others, and only these know how many are too many",
            "- | none | none | none",
        ),
        Limit(
            "background tasks; 0 for any",
            "max_background",
            "503 with Retry-After",
            "they wait for others, as io requests do, and grow unseen",
            "- | none | none | none",
        ),
        Limit("server processes", "workers", "-", "one event loop is seldom too few", "1 | 1 | 1 | 1"),
        Limit("worker processes of the default pool", "cpu_workers", "jobs wait", "more would take turns on the cores"),
        Limit("jobs that wait for a worker", "queue_size", "503 with Retry-After", "who waits longer has given up"),
        Limit(
            "deadline of a cpu route; 0 for none",
            "cpu_timeout",
            "504, the worker is killed; 503 if it has not begun",
            "as a proxy's patience; `timeout=` in the decorator",
        ),
        Limit("result of a job", "max_result_size", "500", "more is a stream's work"),
        Limit(
            "bytes of a worker's stream that nobody has read",
            "",
            "its generator waits",
            "one slice of a big body",
            value=shown("_size", STREAM_HIGH_WATER),
        ),
        Limit(
            "bodies of one batch",
            "",
            "the rest is for the next batch",
            "they are put together on the event loop",
            value=shown("_size", MAX_BATCH_BYTES),
        ),
        Limit(
            "address space of a worker; 0 for any",
            "memory_limit",
            "MemoryError in the handler",
            "only the author knows what a model needs",
        ),
        Limit("memory kept behind a job; 0 for any", "max_memory", "the worker is replaced", "same"),
        Limit("jobs of one worker; 0 for any", "max_jobs", "the worker is replaced", "for libraries that leak"),
    ],
}
GROUPS["Forms, files and sockets"] = [
    Limit(
        "parts of a multipart form",
        "",
        "413",
        "fields, too; their size is max_body_size's; empty parts are a cheap attack",
        value=f"{MAX_PARTS:,}",
    ),
    Limit("bytes before the first boundary", "", "400", "they are skipped", value=shown("_size", MAX_PREAMBLE)),
    Limit("one header line of a part", "", "413", "a name and a file's name", value=shown("_size", MAX_PART_HEADER)),
    Limit("header lines of a part", "", "413", "RFC 7578 knows three", value=str(MAX_PART_HEADERS)),
    Limit("boundary of a form", "", "400", "RFC 2046, 5.1.1", value=f"{MAX_BOUNDARY} characters"),
    Limit(
        "files of a form in memory", "", "they go to disk", "a thumbnail, not a film", value=shown("_size", SPOOL_SIZE)
    ),
    Limit("ranges in one request", "", "the whole file, 200", "readers ask for one or two", value=str(MAX_RANGES)),
    Limit("a WebSocket message, also unpacked", "max_message_size", "closed with 1009", "as the websockets library"),
    Limit(
        "WebSocket messages that wait for their handler", "", "the client is not read", "same", value=str(MAX_QUEUED)
    ),
    Limit(
        "bytes of them",
        "",
        "the client is not read",
        "one message may be longer",
        value=shown("_size", MAX_QUEUED_SIZE),
    ),
    Limit("time between pings; 0 for none", "ping_interval", "a ping", "as the websockets library; proxies wait 60 s"),
    Limit("silence after a ping", "ping_timeout", "cut off", "same"),
    Limit(
        "goodbyes of a socket",
        "",
        "cut off, the handler cancelled",
        "a page that closes answers at once",
        value=f"{GRACE:g} s",
    ),
    Limit("silence of a stream of events", "", "a comment", "WHATWG HTML, 9.2.7", value=f"{HEARTBEAT:g} s"),
    Limit("results that are kept", "max_cache_size", "the oldest goes", "beside models it is little"),
    Limit("a cookie's name and value", "", "ValueError", "browsers drop longer ones", value=f"{MAX_SIZE:,} bytes"),
]
LIMITS = [limit for limits in GROUPS.values() for limit in limits]


def page() -> str:
    parts = [HEAD]
    for title, limits in GROUPS.items():
        parts += [f"## {title}\n\n| limit | default | option | beyond it | why so much |\n|---|---|---|---|---|\n"]
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
    """Options that are limits, as all are that are numbers, and on no line."""
    numbers = {field.name for field in dataclasses.fields(Settings) if type(field.default) in (int, float)}
    return numbers - {"port"} - {limit.option for limit in LIMITS}


if __name__ == "__main__":
    (Path(__file__).parent / "limits.md").write_text(page())
