"""call_metrics.py: calls by service, status and error; retries; replicas that are avoided."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from http_ends import on_loop
from raw_servers import Peer, calling, good, raw_server
from tinysvc.core.call_errors import CallFailed
from tinysvc.runtime.call_metrics import CallMetrics
from tinysvc.telemetry.instruments import Registry

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


def values(registry: Registry, name: str) -> Mapping[tuple[str, ...], float]:
    """The value, or the number of observations, by labels."""
    (metric,) = [each for each in registry.snapshot() if each.name == name]
    return {tuple(point.labels): sum(point.counts) if point.counts else point.value for point in metric.points}


async def closes(peer: Peer) -> None:
    await peer.request()


@on_loop
async def test_calls_are_counted_by_their_result() -> None:
    registry = Registry()
    async with raw_server(good) as server, calling(server) as caller:
        CallMetrics(registry, caller.services)
        for _ in range(3):
            await caller.send("GET")
        assert list(values(registry, "tinysvc.call.breaker_open").values()) == [0]
        assert list(values(registry, "tinysvc.call.in_flight").values()) == [0]
    ((labels, number),) = values(registry, "http.client.request.duration").items()
    assert (labels[1:], number) == (("GET", "200", ""), 3)
    assert list(values(registry, "tinysvc.call.retries").values()) == [0]


@on_loop
async def test_failed_call_is_counted_with_its_retries() -> None:
    registry = Registry()
    async with raw_server(closes) as server, calling(server) as caller:
        CallMetrics(registry, caller.services)
        with pytest.raises(CallFailed):
            await caller.send("GET", idempotent=True)
        assert list(values(registry, "tinysvc.call.in_flight").values()) == [0]
    ((labels, number),) = values(registry, "http.client.request.duration").items()
    assert (labels[1:3], labels[3].startswith("Call"), number) == (("GET", ""), True, 1)
    assert list(values(registry, "tinysvc.call.retries").values()) >= [1]
