"""details.py: the details travel as one metric, and only to the dashboard."""

from __future__ import annotations

from dashboard_readings import worker
from tinysvc.dashboard.details import ErrorDetails, ProcessDetails, decode_details, details_metric, is_details
from tinysvc.telemetry.snapshots import Metric, decode_snapshot, encode_snapshot, merge, without_gauges


def details(process: int) -> ProcessDetails:
    errors = [ErrorDetails(1.5, "GET /", 500, "ValueError", 'a "quoted" text', "id")]
    return ProcessDetails(process, [worker(process, "GET /score")], errors, ["a problem"])


def test_details_survive_the_way_through_the_supervisor() -> None:
    snapshots = [decode_snapshot(encode_snapshot([details_metric(details(number))])) for number in (2, 1)]
    (merged,) = merge(snapshots)
    assert decode_details(merged) == [details(1), details(2)]


def test_dead_process_leaves_no_details() -> None:
    assert without_gauges([details_metric(details(1))]) == []


def test_other_metric_is_no_details() -> None:
    assert not is_details(Metric("tinysvc.connections", "gauge", ""))
