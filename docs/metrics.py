"""Write the table of metrics into docs/telemetry.md: `python docs/metrics.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tinysvc.client.services import Services
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_metrics import RpcMetrics
from tinysvc.runtime.artifact_metrics import artifact_metrics
from tinysvc.runtime.caching import ResponseCache
from tinysvc.runtime.call_metrics import CallMetrics
from tinysvc.runtime.candidate_metrics import CandidateMetrics
from tinysvc.runtime.durable_jobs import DurableJobs, EndedAttempt
from tinysvc.runtime.durable_metrics import DurableMetrics
from tinysvc.runtime.model_swaps import ModelSwaps
from tinysvc.runtime.pool_metrics import PoolMetrics
from tinysvc.runtime.process_metrics import LoopLag, process_metrics
from tinysvc.runtime.request_metrics import RequestMetrics
from tinysvc.runtime.served_artifacts import ServedArtifacts
from tinysvc.runtime.service_metrics import cache_metrics
from tinysvc.runtime.tracing import Tracing
from tinysvc.server.connections import Connections
from tinysvc.server.metrics_endpoint import connection_metrics
from tinysvc.telemetry.exposition import exposed_name
from tinysvc.telemetry.instruments import Registry
from tinysvc.telemetry.snapshots import Metric, Snapshot
from tinysvc.telemetry.span_export import SpanQueue

BEGIN, END = "<!-- metrics: python docs/metrics.py -->\n", "<!-- end of metrics -->\n"
PAGE = Path(__file__).parent / "telemetry.md"


class _NoJobs:
    on_attempt_end: Callable[[EndedAttempt], None] | None = None

    async def counts(self, route: str) -> Mapping[str, int]:
        return {}


async def _all_metrics() -> Snapshot:
    """The metrics of a service that uses everything, without values."""
    registry, settings = Registry(), Settings()
    RequestMetrics(registry, lambda request: "")
    RpcMetrics(registry, [])
    handler: Any = None
    connections = Connections(handler, settings)
    registry.add_source(lambda: connection_metrics(connections))
    PoolMetrics(registry, [])
    CandidateMetrics(registry)
    CallMetrics(registry, Services({}, settings))
    durable = DurableMetrics(registry, cast(DurableJobs, _NoJobs()), [])
    swaps = ModelSwaps(ServedArtifacts(settings, {}), 0)
    registry.add_source(lambda: artifact_metrics(swaps))
    registry.add_source(lambda: cache_metrics(ResponseCache(0)))
    registry.add_source(process_metrics)
    spans = SpanQueue(lambda batch: "", "")
    registry.add_source(Tracing(spans, 0.0).metrics)
    lag = LoopLag(registry)
    snapshot = registry.snapshot()
    lag.stop()
    spans.close(1.0)
    connections.abort()
    await durable.stop()
    return snapshot


def rows(snapshot: Snapshot) -> Iterator[str]:
    yield "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    for metric in sorted(snapshot, key=_name):
        labels = ", ".join(f"`{label.replace('.', '_')}`" for label in metric.labels) or "none"
        yield f"| `{_name(metric)}` | {metric.kind} | {labels} | {metric.text} |\n"


def _name(metric: Metric) -> str:
    return exposed_name(metric) + ("_total" if metric.kind == "counter" else "")


def table() -> str:
    return "".join(rows(asyncio.run(_all_metrics())))


def page(text: str) -> str:
    """The text of docs/telemetry.md with the present table."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
