"""logs.py: the log of a server, as a user sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import served, tinysvc

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


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_each_line_is_json_with_its_request(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py", "--log-format", "json", *options), cwd=tmp_path) as server:
        for path in ("/io/1", "/cpu/1", "/cpu/2", "/fails"):
            httpx.get(server.url + path, headers=HEADERS, timeout=20)
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    in_io, in_worker, _, of_worker, warning, failed = (line for line in lines if line.get("request_id"))
    shared = {"request_id": "mine", "trace_id": TRACE, "span_id": "00f067aa0ba902b7"}
    for line in (in_io, in_worker, of_worker, failed):
        assert shared.items() <= line.items()
        assert ("process" in line) is bool(options)
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
        server.process.send_signal(signal.SIGTERM)
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


def test_lines_name_the_spans_that_are_recorded(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    (tmp_path / "service.py").write_text(SERVICE)
    options = "--log-format", "json", "--access-log", "--traces", "http://127.0.0.1:9"  # no collector listens there
    with served(*tinysvc("service.py", *options), cwd=tmp_path) as server:
        httpx.get(server.url + "/cpu/1", headers=HEADERS, timeout=20)
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    lines = [line for line in map(json.loads, errors.splitlines()) if line.get("request_id")]
    in_worker, access = (line for line in lines if line["logger"] in ("shop", "tinysvc.access"))
    assert in_worker["trace_id"] == access["trace_id"] == TRACE
    spans = {in_worker["span_id"], access["span_id"], "00f067aa0ba902b7"}
    assert len(spans) == 3  # of the worker's run, of the request, and of the client


def test_configured_logging_is_kept(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE + "\nlogging.basicConfig(format='mine %(message)s')\n")
    with served(*tinysvc("service.py", "--log-format", "json"), cwd=tmp_path) as server:
        server.get("/io/1")
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    assert "mine log_format is json, but the module has configured logging" in errors
    assert "mine io 1" in errors


def test_wrong_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    command = [sys.executable, *tinysvc("service.py", "--log-format", "xml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (2, "tinysvc: log_format takes text or json, not 'xml'\n")


@pytest.mark.parametrize("options", [("text",), ("json", "--workers", "2")], ids=["one", "workers"])
def test_log_without_a_reader_stops_no_request(tmp_path: Path, options: tuple[str, ...]) -> None:
    """18 MB of lines, and no process reads them: the loop, the workers and the shutdown go on."""
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py", "--log-format", *options), cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert client.get("/flood/5000").text == "5000"
            assert client.get("/flood-of-worker/1000").text == "1000"
            assert client.get("/io/1").text == "1"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(20)
        assert server.process.stderr is not None
        first, *_ = server.process.stderr.read().splitlines()
        assert "x" * 100 in first


def test_dropped_lines_are_reported_when_the_reader_goes_on(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py", "--log-format", "json"), cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            client.get("/flood/5000")
            stream = server.process.stderr
            assert stream is not None
            count = 0
            reports: list[dict[str, Any]] = []
            while not reports:
                line: dict[str, Any] = json.loads(stream.readline())
                if line["logger"] == "shop":
                    count += 1
                else:
                    reports.append(line)
        (report,) = reports
        assert report["logger"] == "tinysvc.log"
        assert int(report["message"].split()[0]) + count == 5000
