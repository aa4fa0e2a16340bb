"""A service at work gets other versions of its artifact: what its clients, and the people who watch it, see.

Each test publishes versions of its own, and begins when the server serves a good one.
"""

from __future__ import annotations

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


def test_cached_result_of_another_version_is_not_used(running: Running) -> None:
    first = running.serve()
    assert [running.client.get("/cached").text for _ in range(2)] == [str(first)] * 2
    second = running.serve()
    assert running.client.get("/cached").text == str(second)


def test_version_without_room_in_memory_leaves_the_old_one(running: Running) -> None:
    number = running.serve()
    problem = running.problem_with("memory")
    assert problem == f"churn@{number + 1} cannot be opened, and churn@{number} stays: MemoryError: no room"
    response = running.client.get("/readyz")
    assert (response.status_code, running.client.get("/number").text) == (200, str(number))


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
