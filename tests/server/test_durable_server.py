"""server.py with durable jobs: from the POST to the result, over a store on disk."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest

import runner_jobs
from commands import served, tinysvc
from paths import SUPPORT
from system import wait_until
from tinysvc import ConfigurationError
from tinysvc.testing import serving

pytestmark = pytest.mark.usefixtures("nothing_left")

WAIT = {"prefer": "wait=20"}


def test_job_from_its_post_to_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(runner_jobs.ONLY_JOBS, cpu_workers=1) as url, httpx.Client(base_url=url, timeout=30) as client:
        accepted = client.post("/sums", params={"a": 1, "b": 2})
        assert accepted.status_code == 202
        location = accepted.headers["location"]
        wait_until(lambda: client.get(location).json()["state"] == "succeeded", "the job has run")
        assert client.get(f"{location}/result").json() == 3
        assert client.post("/sums", params={"a": 3, "b": 4}, headers=WAIT).json() == 7
        assert client.get("/readyz").json()["status"] == "ready"
    assert not list(tmp_path.iterdir()), "the store of a test is in a folder of its own"


def test_results_outlive_the_server(tmp_path: Path) -> None:
    store = str(tmp_path / "own.db")
    with serving(runner_jobs.ONLY_JOBS, cpu_workers=1, jobs=store) as url:
        accepted = httpx.post(f"{url}/sums", params={"a": 1, "b": 2}, headers=WAIT, timeout=30)
    with serving(runner_jobs.ONLY_JOBS, cpu_workers=1, jobs=store) as url:
        assert httpx.get(f"{url}{accepted.headers['location']}/result").json() == 3


def test_store_of_another_service_is_refused(tmp_path: Path) -> None:
    store = str(tmp_path / "own.db")
    with serving(runner_jobs.ONLY_JOBS, cpu_workers=1, jobs=store):
        pass
    with (
        pytest.raises(ConfigurationError, match="runner"),
        serving(runner_jobs.SHARED, cpu_workers=1, jobs=store),
    ):
        pass


def test_sigterm_requeues_a_running_job_which_goes_on_after_the_restart(tmp_path: Path) -> None:
    command = tinysvc("runner_jobs:ONLY_JOBS", "--cpu-workers", "1", "--jobs", str(tmp_path / "own.db"))
    with served(*command, "--shutdown-timeout", "0.5", cwd=SUPPORT) as server:
        accepted = httpx.post(f"{server.url}/epochs", params={"epochs": 3, "folder": str(tmp_path)}, timeout=30)
        wait_until((tmp_path / "started").exists, "the job runs")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    (tmp_path / "go").touch()
    location = accepted.headers["location"]
    with served(*command, cwd=SUPPORT) as server:
        result = httpx.get(f"{server.url}{location}/result", headers=WAIT, timeout=30)
        assert result.json() == [1, 1, 2], "the saved epochs are those of the first attempt"
        document = server.get(location).json()
    assert (document["state"], document["used"], document["attempt"]) == ("succeeded", 1, 2)
    assert [attempt["cause"] for attempt in document["attempts"]] == ["shutdown", "succeeded"]


def test_server_whose_store_has_closed_itself_ends_with_status_1(tmp_path: Path) -> None:
    command = tinysvc("runner_jobs:ONLY_JOBS", "--cpu-workers", "1", "--jobs", str(tmp_path / "own.db"))
    with served(*command, cwd=SUPPORT) as server:
        assert httpx.post(f"{server.url}/break", timeout=20).status_code == 204
        assert server.process.wait(20) == 1
