"""Write docs/limits.md from Settings and the constants of the engine: `python docs/limits.py`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from options import COMPUTED, shown

from tinysvc.bodies import MAX_DISCARD
from tinysvc.chunked import MAX_ALL_EXTENSIONS, MAX_EXTENSIONS
from tinysvc.http import LINGER
from tinysvc.settings import KiB, Settings

HEAD = """\
# Limits

Everything that a client can make bigger, longer or more has a bound. `max_header_size` is an option of `Service(...)`
and `tinysvc.run(...)`, the flag `--max-header-size` and the variable `TINYSVC_MAX_HEADER_SIZE`, and so on;
[options.md](options.md) lists the options that are no limits, too. Sizes are bytes, times are seconds. Only
where it is said does 0 mean that there is no limit.

A limit holds however the bytes are cut, and for what is not complete yet as for what is. Times are looked at once a
second: nothing is cut off early, and something at most two seconds late.

This page is written by `python docs/limits.py`.

"""

BESIDE = """
## Beside others

The defaults of nginx 1.26, Node 20, Go 1.22 (net/http) and uvicorn 0.30 (with httptools), from their documentation.
"none" is no limit, "-" a question that does not arise there.

| limit | tinysvc | nginx | Node | Go | uvicorn |
|---|---|---|---|---|---|
"""


class Limit(NamedTuple):
    """One line of the tables. `option` is a field of Settings, or empty where `value` is a constant."""

    what: str
    option: str
    passed: str
    why: str
    others: tuple[str, str, str, str] | None = None
    value: str = ""

    @property
    def default(self) -> str:
        if not self.option:
            return self.value
        default = Settings.__dataclass_fields__[self.option].default
        return COMPUTED.get(self.option) or (self.value if default == 0 and self.value else shown(self.option, default))


def size(count: int) -> str:
    return f"{count // KiB} KiB" if count >= KiB else f"{count} bytes"


GROUPS = {
    "A request": [
        Limit(
            "request line",
            "max_request_line",
            "414",
            "RFC 9112, 3 asks for at least 8000",
            ("8 KiB", "16 KiB with the fields", "1 MiB with the fields", "none"),
        ),
        Limit(
            "header block",
            "max_header_size",
            "431",
            "nginx's",
            ("4 x 8 KiB", "16 KiB", "1 MiB", "none"),
        ),
        Limit("header field", "max_header_field", "431", "nginx's, Apache's", ("8 KiB", "-", "-", "none")),
        Limit(
            "header fields",
            "max_headers",
            "431",
            "Apache's, gunicorn's and cowboy's; a browser sends 15",
            ("none", "2000", "none", "none"),
        ),
        Limit(
            "body",
            "max_body_size",
            "413",
            "a photograph; a route that expects more says so: `max_body_size=` in its decorator",
            ("1 MiB", "none", "none", "none"),
        ),
        Limit(
            "extensions of one chunk",
            "",
            "400",
            "nobody uses them but attackers (CVE-2023-39326)",
            ("none", "16 KiB", "16 KiB", "none"),
            size(MAX_EXTENSIONS),
        ),
        Limit("and of all chunks of a body", "", "400", "same", None, size(MAX_ALL_EXTENSIONS)),
        Limit("trailers", "", "431", "they are fields", None, "as the header block"),
        Limit(
            "unread body that is swallowed",
            "",
            "the connection closes behind the answer",
            "Go's",
            ("body limit", "none", "256 KiB", "none"),
            size(MAX_DISCARD),
        ),
    ],
    "Its time": [
        Limit(
            "first byte on a new connection",
            "first_byte_timeout",
            "closed",
            "as for a head",
            ("60 s", "60 s", "none", "none"),
        ),
        Limit(
            "the head, from its first byte",
            "header_timeout",
            "408",
            "a head is one packet or two; slow ones are an attack (slowloris). Also a TLS handshake's time",
            ("60 s", "60 s", "none", "none"),
        ),
        Limit(
            "the next piece of a body",
            "body_timeout",
            "408",
            "a phone in a tunnel comes back sooner",
            ("60 s", "300 s for all of it", "none", "none"),
        ),
        Limit(
            "bytes a second of a body, after that time; 0 for any",
            "min_body_rate",
            "408",
            "Apache's mod_reqtimeout: 500",
            ("none", "none", "none", "none"),
        ),
        Limit(
            "idle keep-alive", "keep_alive_timeout", "closed", "between nginx and Node", ("75 s", "5 s", "none", "5 s")
        ),
        Limit(
            "a client that reads nothing of its answer",
            "write_timeout",
            "cut off",
            "half of nginx's",
            ("60 s", "none", "none", "none"),
        ),
        Limit(
            "reading on behind a refusal",
            "",
            "closed",
            "so that the client sees it; cowboy: 1 s",
            None,
            f"{LINGER:g} s",
        ),
    ],
    "Connections": [
        Limit(
            "open connections",
            "max_connections",
            "the oldest idle one is closed; without one, 503",
            "some 6 KiB each",
            ("512", "none", "none", "none"),
        ),
        Limit(
            "waiting to be accepted", "backlog", "the kernel refuses", "asyncio's", ("511", "511", "somaxconn", "2048")
        ),
        Limit(
            "requests on one connection",
            "max_requests",
            "closed behind the last answer",
            "lets a load balancer spread anew",
            ("1000", "none", "none", "none"),
        ),
        Limit(
            "pipelined bytes that are held",
            "max_pipelined",
            "the client keeps the rest",
            "twice what one read brings",
            ("one buffer", "none", "4 KiB", "64 KiB"),
        ),
        Limit(
            "time for what is under way at the end",
            "shutdown_timeout",
            "cut off",
            "what service managers wait is 10 to 30 s",
            ("none", "none", "none", "none"),
        ),
    ],
    "Work": [
        Limit(
            "bodies held in memory, of all connections",
            "max_body_memory",
            "503",
            "a service has 2 GiB or more",
            ("on disk", "none", "none", "none"),
        ),
        Limit(
            "io requests at work; 0 for any",
            "max_io_requests",
            "503 with Retry-After",
            "they wait for others, and only these know how many are too many",
            ("-", "none", "none", "none"),
            "any",
        ),
        Limit("jobs that wait for a worker", "queue_size", "503 with Retry-After", "who waits longer has given up"),
        Limit(
            "deadline of a cpu route; 0 for none", "cpu_timeout", "504, the worker is killed", "as a proxy's patience"
        ),
        Limit("result of a job", "max_result_size", "500", "more is a stream's work"),
        Limit(
            "memory of a worker; 0 for any",
            "memory_limit",
            "MemoryError in the handler",
            "only the author knows what a model needs",
            None,
            "any",
        ),
        Limit("memory kept behind a job; 0 for any", "max_memory", "the worker is replaced", "same", None, "any"),
    ],
}


def page() -> str:
    parts = [HEAD]
    for title, limits in GROUPS.items():
        parts += [f"## {title}\n\n| limit | default | option | beyond it | why so much |\n|---|---|---|---|---|\n"]
        for limit in limits:
            option = f"`{limit.option}`" if limit.option else "-"
            parts.append(f"| {limit.what} | {limit.default} | {option} | {limit.passed} | {limit.why} |\n")
        parts.append("\n")
    parts[-1] = BESIDE
    for limit in [limit for limits in GROUPS.values() for limit in limits if limit.others]:
        what = limit.what.partition(";")[0]
        parts.append(f"| {what} | {limit.default} | {' | '.join(limit.others or ())} |\n")
    return "".join(parts)


def missing() -> set[str]:
    """Options that are limits, by their names, and are on no line."""
    named = {limit.option for limits in GROUPS.values() for limit in limits}
    fields = {field.name for field in dataclasses.fields(Settings)}
    return {name for name in fields if name.startswith(("max_", "min_")) or name.endswith("_timeout")} - named


if __name__ == "__main__":
    (Path(__file__).parent / "limits.md").write_text(page())
