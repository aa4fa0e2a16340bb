"""process_snapshots.py: the supervisor gathers the snapshots of its processes, and keeps the counters of the dead."""

from __future__ import annotations

import math

import pytest

from tinysvc.server import process_snapshots
from tinysvc.server.process_snapshots import ProcessSnapshots
from tinysvc.telemetry.instruments import metric_of
from tinysvc.telemetry.snapshots import Metric, decode_snapshot, encode_snapshot, merge

Sent = list[tuple[int, bytes]]


def counts(sold: int, waiting: int = 0) -> bytes:
    metrics = [
        metric_of("counter", "sold", "", [((), sold)]),
        metric_of("gauge", "waiting", "", [((), waiting)]),
    ]
    return encode_snapshot(metrics)


def values(line: bytes) -> dict[str, float]:
    kind, _, data = line.split(b" ", 2)
    assert kind == b"snapshots"
    found: list[Metric] = merge(map(decode_snapshot, data.split(b",")))
    return {metric.name: metric.points[0].value for metric in found}


@pytest.fixture
def sent() -> Sent:
    return []


@pytest.fixture
def snapshots(sent: Sent) -> ProcessSnapshots:
    made = ProcessSnapshots(lambda pid, line: sent.append((pid, line)))
    for pid in (11, 12):
        assert made.receive(pid, b"snapshot 0 " + counts(pid))
    return made


def test_other_lines_are_not_ours(snapshots: ProcessSnapshots) -> None:
    assert not snapshots.receive(11, b'{"ready": true}')


def test_scrape_waits_for_a_fresh_report_of_each_process(snapshots: ProcessSnapshots, sent: Sent) -> None:
    snapshots.receive(11, b"gather 7")
    assert sent == [(11, b"report 1"), (12, b"report 1")]
    snapshots.receive(12, b"snapshot 1 " + counts(200, 3))
    assert len(sent) == 2
    snapshots.receive(11, b"snapshot 1 " + counts(100, 4))
    assert (sent[-1][0], sent[-1][1][:12]) == (11, b"snapshots 7 ")
    assert values(sent[-1][1]) == {"sold": 300, "waiting": 7}
    assert snapshots.seconds_left() == math.inf


def test_scrape_goes_on_without_a_process_that_hangs(
    snapshots: ProcessSnapshots, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.receive(11, b"gather 7")
    snapshots.receive(11, b"snapshot 1 " + counts(100))
    assert 0 < snapshots.seconds_left() <= process_snapshots.ROUND_LIMIT
    snapshots.tick()
    assert sent[-1] == (12, b"report 1")
    monkeypatch.setattr(process_snapshots, "monotonic", lambda: math.inf)
    snapshots.tick()
    assert values(sent[-1][1])["sold"] == 112


def test_dead_process_leaves_its_counters_and_no_gauges(snapshots: ProcessSnapshots, sent: Sent) -> None:
    for pid, sold in ((12, 50), (13, 30)):
        snapshots.receive(pid, b"snapshot 0 " + counts(sold, 9))
        snapshots.ended(pid)
    snapshots.receive(11, b"gather 1")
    snapshots.receive(11, b"snapshot 1 " + counts(5, 2))
    assert values(sent[-1][1]) == {"sold": 85, "waiting": 2}


def test_death_ends_the_wait_for_its_report(snapshots: ProcessSnapshots, sent: Sent) -> None:
    snapshots.receive(11, b"gather 1")
    snapshots.receive(11, b"snapshot 1 " + counts(5))
    snapshots.ended(12)
    assert values(sent[-1][1])["sold"] == 17


def test_scrape_of_a_dead_process_is_dropped(snapshots: ProcessSnapshots, sent: Sent) -> None:
    snapshots.receive(11, b"gather 1")
    snapshots.ended(11)
    snapshots.receive(12, b"snapshot 1 " + counts(5))
    assert [pid for pid, line in sent if line.startswith(b"snapshots")] == []
    assert snapshots.seconds_left() == math.inf


def test_process_that_never_reported_has_nothing_to_keep(snapshots: ProcessSnapshots) -> None:
    snapshots.ended(99)
