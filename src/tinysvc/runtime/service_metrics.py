"""The metrics of one running service: one registry, and what is counted in it.

Nothing here is imported or called in a service without `metrics` and `dashboard`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

from ..core.requests import Request
from ..core.trace_context import trace_of
from ..pool.program import SharedMemory
from ..telemetry.author_metrics import AuthorMetrics
from ..telemetry.instruments import Registry, metric_of
from ..telemetry.snapshots import Metric
from ..telemetry.value_file import SIZE
from ..telemetry.worker_values import share_values
from .call_metrics import CallMetrics
from .durable_metrics import DurableMetrics
from .pool_metrics import PoolMetrics
from .process_metrics import LoopLag, process_metrics
from .request_metrics import RequestMetrics

if TYPE_CHECKING:
    from ..client.services import Services
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from .caching import ResponseCache
    from .durable_jobs import DurableJobs
    from .model_swaps import ModelSwaps


class Measured(Protocol):
    """A running service, as far as it is measured."""

    pools: list[ProcessPoolExecutor | ExternalPool]
    durable: DurableJobs | None
    swaps: ModelSwaps | None

    @property
    def response_cache(self) -> ResponseCache | None:
        """The cache that all routes with cache= share; None if there is none."""

    def durable_routes(self) -> list[str]:
        """The path patterns of the job routes."""


class ServiceMetrics:
    """The registry of a running service. `requests` counts its requests; `shared` has the author's counts in workers.

    Args:
        has_siblings: Other server processes serve the same service.
    """

    def __init__(self, *, has_siblings: bool = False) -> None:
        self.registry = Registry()
        author = AuthorMetrics(has_siblings=has_siblings)
        self.registry.add_thread_source(author.metrics)
        self.shared = SharedMemory(SIZE, share_values, author.attach)
        self.requests = RequestMetrics(self.registry, sampled_trace)

    def start(self, stack: AsyncExitStack, running: Measured, services: Services | None) -> None:
        """Begin to count what the running service does; `stack` ends it. The pools have not started yet."""
        registry = self.registry
        PoolMetrics(registry, running.pools)
        if services is not None:
            CallMetrics(registry, services)
        if running.durable is not None:
            durable = DurableMetrics(registry, running.durable, running.durable_routes())
            stack.push_async_callback(durable.stop)
        if (swaps := running.swaps) is not None:
            from .artifact_metrics import artifact_metrics  # imported only where a resource takes an artifact

            registry.add_source(lambda: artifact_metrics(swaps))
        registry.add_source(lambda: cache_metrics(running.response_cache))
        registry.add_source(process_metrics)
        stack.callback(LoopLag(registry).stop)


def cache_metrics(cache: ResponseCache | None) -> Iterable[Metric]:
    """The use of the cache that all routes with cache= share."""
    if cache is None:
        return ()
    requests = [(["hit"], cache.hits), (["miss"], cache.misses)]
    return (
        metric_of("counter", "tinysvc.cache.requests", "Requests of routes with a cache.", requests, ["result"]),
        metric_of("gauge", "tinysvc.cache.size", "Bytes of the results in the cache.", [((), cache.size)], unit="By"),
    )


def sampled_trace(request: Request) -> str:
    """The id of the trace that the request belongs to, if it is sampled; else ""."""
    found = trace_of(request.headers.raw)
    return found.trace_id if found is not None and found.is_sampled else ""
