"""A collector of traces, as small as a test needs it: OTLP over HTTP, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from system import wait_until
from tinysvc.telemetry import span_export


class Span(NamedTuple):
    """A span that has arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[tuple[str, str]]
    status: int
    description: str
    scope: str
    resource: dict[str, Any]


class Collector:
    """The spans that have arrived. `status` is the response to the next batches; `gate` holds the responses back."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.paths: set[str] = set()
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.url = ""

    def named(self, name: str) -> list[Span]:
        return [span for span in list(self.spans) if span.name == name]

    def wait_for(self, *names: str) -> list[Span]:
        """The first span of each name, when all have arrived."""
        wait_until(lambda: all(self.named(name) for name in names), f"{names}; there is: {self.names()}")
        return [self.named(name)[0] for name in names]

    def names(self) -> list[str]:
        return [span.name for span in list(self.spans)]

    def add(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(span, scope.scope.name, about) for span in scope.spans]


def _span(span: Any, scope: str, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        [(event.name, _attributes(event.attributes)) for event in span.events],
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        span.status.code,
        span.status.message,
        scope,
        resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        value: Any = getattr(pair.value, kind) if kind else None
        if kind == "array_value":
            value = [getattr(each, each.WhichOneof("value")) for each in value.values]
        found[pair.key] = value
    return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs while the block does. Servers of this process send each span almost at once."""
    delay, span_export.DELAY = span_export.DELAY, 0.05
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.paths.add(self.path)
            collector.gate.wait(30)
            if collector.status == 200:
                collector.add(body)
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield collector
    finally:
        span_export.DELAY = delay
        collector.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
