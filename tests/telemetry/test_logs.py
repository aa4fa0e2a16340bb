"""logs.py: the log of a server, as a user sees it."""

from __future__ import annotations

import io
import json
import logging
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import served, tinysvc
from tinysvc.core.setting_values import SettingsError
from tinysvc.core.settings import Settings
from tinysvc.telemetry.logs import configure_logging

SERVICE = """
import logging, warnings
from tinysvc import cpu_route, io_route

log = logging.getLogger("shop")

@io_route("/io/{row}")
async def io(row: int) -> int:
    log.warning("io %d", row, extra={"row": row})
    return row

@cpu_route("/cpu/{row}")
def cpu(row: int) -> int:
    log.warning("cpu\\nrow", extra={"row": row, "name_of": {"a": [1]}})
    if row == 2:
        raise LookupError("no such row")
    return row

@io_route("/fails")
async def fails() -> int:
    warnings.warn("old")
    raise LookupError("no such row")

@io_route("/flood/{lines}")
async def flood(lines: int) -> int:
    for _ in range(lines):
        log.warning("x" * 3000)
    return lines

@cpu_route("/flood-of-worker/{lines}")
def flood_of_worker(lines: int) -> int:
    for _ in range(lines):
        log.warning("x" * 3000)
    return lines
"""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"x-request-id": "mine", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def test_each_line_is_json_with_its_request(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    traces = "--traces", "http://127.0.0.1:9"  # no collector listens there
    with served(*tinysvc("service.py", "--log-format", "json", *traces), cwd=tmp_path) as server:
        for path in ("/io/1", "/cpu/1", "/cpu/2", "/fails"):
            httpx.get(server.url + path, headers=HEADERS, timeout=20)
        server.process.kill()
        _, errors = server.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    in_io, in_worker, _, of_worker, warning, failed = (line for line in lines if line.get("request_id"))
    shared = {"request_id": "mine", "trace_id": TRACE}
    for line in (in_io, in_worker, of_worker, failed):
        assert shared.items() <= line.items()
        assert "process" not in line
    spans = [line["span_id"] for line in (in_io, in_worker, of_worker, failed)]
    assert len({*spans, "00f067aa0ba902b7"}) == 5  # those of three requests, of a worker's run, and of the client
    assert in_io.items() >= {"message": "io 1", "route": "GET /io/{row}", "row": 1, "logger": "shop"}.items()
    expected = {"message": "cpu\nrow", "row": 1, "pool": "default", "name_of": {"a": [1]}}
    assert {name: in_worker[name] for name in expected} == expected
    assert in_worker["worker"] > 0
    assert of_worker["message"] == "GET /cpu/2: LookupError: no such row"
    assert failed["message"] == "GET /fails: the handler failed"
    for line in (of_worker, failed):
        assert line["exception"].startswith("Traceback (most recent call last):\n  File ")
    assert warning["logger"] == "py.warnings"
    assert "UserWarning: old" in warning["message"]


JOBS = """
import logging
from tinysvc import Job, Retry, cpu_route, job_route

log = logging.getLogger("shop")

@job_route("/trainings", retry=Retry(attempts=2, wait=0.05))
def train(rows: int, job: Job) -> int:
    log.warning("trained", extra={"rows": rows})
    if job.attempt == 1:
        raise LookupError
    return rows

@cpu_route("/after")
def after() -> int:
    log.warning("after")
    return 1
"""


def test_lines_of_a_durable_job_name_it(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(JOBS)
    options = "--log-format", "json", "--cpu-workers", "1"
    with served(*tinysvc("service.py", *options), cwd=tmp_path) as server:
        accepted = httpx.post(server.url + "/trainings", params={"rows": 7}, headers=HEADERS, timeout=20)
        job_id = accepted.json()["id"]
        while httpx.get(f"{server.url}/trainings/{job_id}", timeout=20).json()["state"] not in ("succeeded", "failed"):
            time.sleep(0.05)
        server.get("/after")
        server.process.kill()
        _, errors = server.process.communicate(timeout=30)
    every = [json.loads(line) for line in errors.splitlines()]
    (failed,) = (line for line in every if line["logger"] == "tinysvc.jobs" and "job_id" in line)
    assert (failed["job_id"], failed["attempt"], failed["route"]) == (job_id, 1, "job /trainings")
    assert failed["message"].startswith(f"attempt 1 of job {job_id} (/trainings) failed (error): LookupError")
    assert failed["exception"].endswith("LookupError")
    lines = [line for line in every if line["logger"] == "shop"]
    assert [(line["message"], line.get("job_id"), line.get("attempt")) for line in lines] == [
        ("trained", job_id, 1),
        ("trained", job_id, 2),
        ("after", None, None),
    ]
    expected = {"request_id": "mine", "trace_id": TRACE, "route": "job /trainings", "rows": 7, "worker": 1}
    assert {name: lines[0][name] for name in expected} == expected


def test_configured_logging_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().handlers[:]  # pytest's
    configure_logging(Settings(log_format="json"))
    assert logging.getLogger().handlers == before
    assert "log_format is json, but the module has configured logging" in caplog.text


def test_replaced_standard_error_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program has set sys.stderr to a stream without a descriptor."""
    stream, root = io.StringIO(), logging.getLogger()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    configure_logging(Settings(log_level="warning"), shows_process=True)
    logging.getLogger("shop").warning("slow row")
    root.setLevel(level)
    assert re.match(r"WARNING shop\[\d+\]: slow row", stream.getvalue())


def test_wrong_format_is_refused() -> None:
    with pytest.raises(SettingsError, match="log_format takes text or json, not 'xml'"):
        Settings(log_format="xml")


def test_log_without_a_reader_stops_no_request(tmp_path: Path) -> None:
    """18 MB of lines, and no process reads them: the loop and the workers go on. Then one reads what was kept."""
    (tmp_path / "service.py").write_text(SERVICE)
    with (
        served(*tinysvc("service.py", "--log-format", "json"), cwd=tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert client.get("/flood/5000").text == "5000"
        assert client.get("/flood-of-worker/1000").text == "1000"
        assert client.get("/io/1").text == "1"
        stream = server.process.stderr
        assert stream is not None
        lines: list[dict[str, Any]] = []
        while not (lines and lines[-1]["message"] == "io 1"):
            lines.append(json.loads(stream.readline()))
    dropped = sum(int(line["message"].split()[0]) for line in lines if line["logger"] == "tinysvc.log")
    assert dropped > 4000
    assert dropped + sum(line["message"] == "x" * 3000 for line in lines) == 6000


def test_log_without_a_reader_stops_no_shutdown(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py", "--log-format", "json", "--workers", "2"), cwd=tmp_path) as server:
        assert server.get("/flood/200").text == "200"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        assert server.process.stderr is not None
        first, *_ = server.process.stderr.read().splitlines()
    assert json.loads(first)["process"] > 0
