"""The metrics of one running service: one registry, and what is counted in it.

Nothing here is imported or called in a service without `metrics` and `dashboard`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from ..core.requests import Request
from ..pool.program import SharedMemory
from ..telemetry.author_metrics import AuthorMetrics
from ..telemetry.instruments import Registry
from ..telemetry.value_file import SIZE
from ..telemetry.worker_values import share_values
from .pool_metrics import PoolMetrics
from .process_metrics import LoopLag, process_metrics
from .request_metrics import RequestMetrics

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace_id>[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})")


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
        self.requests = RequestMetrics(self.registry, trace_of_header)

    def start(self, stack: AsyncExitStack, pools: Sequence[ProcessPoolExecutor | ExternalPool]) -> None:
        """Begin to count. `stack` ends it."""
        PoolMetrics(self.registry, pools)
        self.registry.add_source(process_metrics)
        stack.callback(LoopLag(self.registry).stop)


def trace_of_header(request: Request) -> str:
    """The trace id in `traceparent` (W3C Trace Context), if the caller has sampled the trace; else ""."""
    found = _TRACEPARENT.match(request.headers.get("traceparent", ""))
    return found["trace_id"] if found and int(found["flags"], 16) & 1 else ""
