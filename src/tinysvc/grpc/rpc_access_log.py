"""The access log of gRPC: a line for each call, when it has ended. Only with `access_log`.

    INFO tinysvc.access: 10.0.0.7 RPC inference.Inference/Predict OK, 1.2 ms [request 8f2c-1]

server/access_log.py writes those of HTTP.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any

from ..core.log_records import SOURCE, RecordSource
from ..core.trace_context import trace_of
from .open_calls import OpenCall

log = logging.getLogger("tinysvc.access")


def log_call(call: OpenCall) -> None:
    """Log a call that has ended."""
    if not log.isEnabledFor(logging.INFO):
        return
    request, name = call.request, call.method.name.removeprefix("/")
    seconds = perf_counter() - call.begun
    client = request.client
    fields: dict[str, Any] = {
        "method": "RPC",
        "path": name,
        "status": call.status.name,
        "duration": round(seconds, 6),
        "client": client[0] if isinstance(client, tuple) else "unix",
    }
    source = RecordSource(extra=fields, request_id=request.id, message=f"RPC {name} {call.status.name}")
    if (trace := trace_of(request.headers.raw)) is not None:
        source.trace_id, source.span_id = trace.trace_id, trace.span_id
    line = "%s RPC %s %s, %.1f ms [%s]"
    arguments = fields["client"], name, call.status.name, seconds * 1000, source.place()
    log.info(line, *arguments, extra={SOURCE: source})
