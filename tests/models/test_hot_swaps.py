"""A service at work gets other versions of its artifact: what its clients, and the people who watch it, see.

Each test publishes versions of its own, and begins when the server serves a good one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import models_app
from collector import Collector, collecting
from scrapes import Scrape
from swap_pools import publish, store_in
from system import wait_until
from tinysvc.models.store import ModelStore
from tinysvc.testing import serving

CHURN = "churn@production"


class Running(NamedTuple):
    """The service, its store, and what it reports."""

    client: httpx.Client
    store: ModelStore
    collector: Collector

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/readyz").json()["artifacts"][CHURN]
        return found

    def serve(self, content: str | None = None) -> int:
        """Publish a good version, and wait until it is served."""
        number = len(self.store.versions("churn")) + 1
        assert publish(self.store, content=content or str(number)) == number
        self.until(number)
        return number

    def until(self, number: int) -> None:
        wait_until(lambda: self.status() == {"version": number}, f"version {number} is served")

    def problem_with(self, content: str) -> str:
        """Publish a bad version, and return the problem that it makes."""
        publish(self.store, content=content)
        wait_until(lambda: "problem" in self.status(), "the new version is a problem")
        return str(self.status()["problem"])

    def scrape(self) -> Scrape:
        return Scrape(self.client.get("/metrics").text)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    store = store_in(folder)
    publish(store, content="1")
    options: dict[str, Any] = {"models": str(folder / "models"), "models_interval": 0.05, "metrics": "/metrics"}
    with (
        collecting() as collector,
        serving(models_app.service, traces=collector.url, trace_sample=0.0, raise_errors=False, **options) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield Running(client, store, collector)


def test_each_kind_of_response_names_its_version(running: Running, tmp_path: Path) -> None:
    number = running.serve()
    (tmp_path / "go").touch()
    for response in (
        running.client.get("/number"),
        running.client.get("/cached"),
        running.client.post("/batched", params={"items": 1}),
        running.client.get("/stream", params={"folder": str(tmp_path)}),
    ):
        assert (response.status_code, response.headers["x-artifact"]) == (200, f"churn@{number}"), response.text
    assert "x-artifact" not in running.client.get("/io").headers


def test_no_request_fails_while_versions_change(running: Running) -> None:
    over, answers = threading.Event(), list[tuple[int, str]]()

    def ask() -> None:
        with httpx.Client(base_url=running.client.base_url, timeout=30) as client:
            while not over.is_set():
                response = client.get("/number")
                answers.append((response.status_code, response.headers.get("x-artifact", "")))

    first = running.serve()
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    last = [running.serve() for _ in range(2)][-1]
    over.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}
    assert answers[-1][1] == f"churn@{last}"
    assert {version for _, version in answers} <= {f"churn@{number}" for number in range(first, last + 1)}


def test_stream_ends_on_the_version_that_it_began_with(running: Running, tmp_path: Path) -> None:
    first = running.serve()
    with running.client.stream("GET", "/stream", params={"folder": str(tmp_path)}) as response:
        lines = response.iter_lines()
        assert next(lines) == str(first)
        publish(running.store, content=str(first + 1))
        wait_until(lambda: running.client.get("/number").text == str(first + 1), "the new version answers")
        (tmp_path / "go").touch()
        assert list(lines) == [str(first)]
    assert response.headers["x-artifact"] == f"churn@{first}"
    running.until(first + 1)


def test_cached_result_of_another_version_is_not_used(running: Running) -> None:
    first = running.serve()
    assert [running.client.get("/cached").text for _ in range(2)] == [str(first)] * 2
    second = running.serve()
    assert running.client.get("/cached").text == str(second)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no number", "cannot be opened.*ValueError: invalid literal"),
        ("901", "cannot be opened.*the check of the resource number refuses it: is_sane returned False"),
        ("memory", "cannot be opened.*MemoryError"),
        ("exits", "cannot be opened"),
    ],
)
def test_version_that_cannot_be_opened_leaves_the_old_one(running: Running, content: str, reason: str) -> None:
    number = running.serve()
    problem = running.problem_with(content)
    assert problem.startswith(f"churn@{number + 1} cannot be opened, and churn@{number} stays: ")
    assert re.search(reason, problem), problem
    assert running.client.get("/readyz").status_code == 200
    assert running.client.get("/number").text == str(number)
    running.store.rollback("churn", "production")
    running.until(number)


def test_version_that_crashes_workers_is_rolled_back(running: Running) -> None:
    number = running.serve()
    publish(running.store, content="killer")
    statuses = set()

    def is_back() -> bool:
        statuses.add(running.client.get("/number").status_code)
        return "ended" in running.status().get("problem", "") and running.status()["version"] == number

    wait_until(is_back, "the old version is served again")
    assert statuses == {200, 500}
    problem = running.status()["problem"]  # it "stays" if both workers crash before the swap has ended
    assert re.search(rf"workers \(\d crashed\), and churn@{number} (stays|is served again)$", problem)
    running.serve()


def test_metrics_show_versions_troubles_and_ends(running: Running) -> None:
    running.serve()
    before = running.scrape().sum("tinysvc_artifact_swaps_total", outcome="ok")
    number = running.serve()
    scrape = running.scrape()
    assert scrape.sum("tinysvc_artifact_served", artifact=CHURN, version=str(number)) == 1
    assert scrape.sum("tinysvc_artifact_swaps_total", outcome="ok") == before + 1
    assert scrape.sum("tinysvc_artifact_troubled", artifact=CHURN) == 0
    assert scrape.sum("tinysvc_artifact_alias_age_seconds", artifact=CHURN) < 20


def test_span_of_a_job_names_its_version(running: Running, tmp_path: Path) -> None:
    number = running.serve()
    (tmp_path / "go").touch()
    running.collector.spans.clear()
    traced = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    running.client.get("/number", headers=traced)
    running.client.get("/stream", params={"folder": str(tmp_path)}, headers=traced)
    for span in running.collector.wait_for("run /number", "run /stream"):
        assert span.attributes["tinysvc.artifact"] == f"churn@{number}"


def test_rollback_is_one_move_of_the_alias(running: Running) -> None:
    first, second = running.serve(), running.serve()
    running.store.rollback("churn", "production", by="ada")
    running.until(first)
    assert running.client.get("/number").headers["x-artifact"] == f"churn@{first}"
    assert second == first + 1
    running.serve()
