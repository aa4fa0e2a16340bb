"""candidates.py: a real server whose clients get the response of one of two versions, or of the one that serves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import pytest

import candidates_app
from scrapes import Scrape, scrape
from swap_pools import publish, store_in
from system import wait_until
from tinysvc import Artifact, Cache, Service, cpu_resource, cpu_route
from tinysvc.core.errors import ConfigurationError
from tinysvc.models.store import ModelStore
from tinysvc.runtime.candidates import fraction_of
from tinysvc.testing import serving


class Bench:
    """The service, its store and its metrics."""

    def __init__(self, url: str, store: ModelStore, client: httpx.Client) -> None:
        self.url = url
        self.store = store
        self.client = client

    def scrape(self) -> Scrape:
        return scrape(f"{self.url}/metrics")

    def count(self, name: str, **labels: str) -> float:
        return self.scrape().sum(name, **labels)

    def try_candidate(self, name: str, content: str) -> int:
        """Publish a candidate, and wait until the workers have it."""
        version = publish(self.store, name, content, "candidate")
        wait_until(lambda: self.artifact(f"{name}@candidate").get("version") == version, "the candidate is loaded")
        return version

    def artifact(self, reference: str) -> dict[str, object]:
        found: dict[str, object] = self.client.get("/readyz").json()["artifacts"][reference]
        return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("models")
    store = store_in(folder)
    publish(store, "churn", "1")
    publish(store, "words", "1")
    options = {"models": f"{folder}/models", "models_cache": f"{folder}/copies", "models_interval": 0.1}
    with (
        serving(candidates_app.service, raise_errors=False, metrics="/metrics", **options) as url,
        httpx.Client(base_url=url, timeout=20) as client,
    ):
        yield Bench(url, store, client)


def test_nothing_is_tried_without_a_candidate(bench: Bench) -> None:
    assert bench.client.get("/number").json() == 1
    assert bench.client.get("/variant").json() == 1
    assert bench.artifact("churn@candidate") == {"version": None}
    assert bench.count("tinysvc_candidate_requests_total") == 0


def test_share_of_the_clients_gets_the_candidate(bench: Bench) -> None:
    bench.try_candidate("words", "2")
    users = {
        f"user {number}": bench.client.get("/variant", headers={"x-user": f"user {number}"}) for number in range(60)
    }
    assert {response.json() for response in users.values()} == {1, 2}
    for user, response in users.items():
        assert response.headers["x-artifact"] == f"words@{response.json()}"
        assert bench.client.get("/variant", headers={"x-user": user}).json() == response.json()  # sticky
    assert {bench.client.get("/variant").json() for _ in range(60)} == {1, 2}
    labels = {"http_route": "/variant", "artifact": "words@candidate", "outcome": "ok"}
    counts = [
        bench.count("tinysvc_candidate_requests_total", variant=each, **labels) for each in ("served", "candidate")
    ]
    assert sum(counts) == 180
    assert min(counts) > 30
    assert bench.count("tinysvc_candidate_duration_seconds_count", artifact="words@candidate") == 180


def test_promoted_candidate_is_not_tried_any_more(bench: Bench) -> None:
    version = bench.artifact("words@candidate")["version"]
    assert isinstance(version, int)
    bench.store.move_alias("words", "production", version)
    wait_until(lambda: bench.artifact("words@production")["version"] == version, "it serves")
    before = bench.count("tinysvc_candidate_requests_total", artifact="words@candidate")
    assert {bench.client.get("/variant").json() for _ in range(20)} == {2}
    assert bench.count("tinysvc_candidate_requests_total", artifact="words@candidate") == before


def test_shadow_is_compared_and_reaches_no_client(bench: Bench) -> None:
    bench.try_candidate("churn", "4")

    def compared() -> bool:
        response = bench.client.get("/number?plus=5")
        assert (response.json(), response.headers["x-artifact"]) == (6, "churn@1")
        return bench.count("tinysvc_candidate_difference_sum", http_route="/number") >= 6

    wait_until(compared, "two requests are compared")
    found = bench.scrape()
    number = {"http_route": "/number", "artifact": "churn@candidate"}
    count = found.sum("tinysvc_candidate_difference_count", **number)
    assert found.sum("tinysvc_candidate_difference_sum", **number) == 3 * count
    assert found.sum("tinysvc_candidate_requests_total", variant="candidate", outcome="ok", **number) == count
    assert found.sum("tinysvc_candidate_requests_total", variant="served", outcome="ok", **number) >= count


def test_requests_of_a_batch_are_shadowed(bench: Bench) -> None:
    def compared() -> bool:
        assert bench.client.post("/sum?items=5").json() == 6
        return bench.count("tinysvc_candidate_difference_sum", http_route="/sum") >= 3

    wait_until(compared, "a request is compared")


@pytest.mark.parametrize("path", ["/stream", "/text"])
def test_streams_and_errors_are_not_shadowed(bench: Bench, path: str) -> None:
    assert bench.client.get(path).text == "1"
    assert bench.count("tinysvc_candidate_requests_total", http_route=path) == 0


@pytest.mark.parametrize(
    ("content", "outcome", "log"),
    [
        ("raises", "error", "the candidate churn@{} fails: ValueError: no such number\nTraceback"),
        ("killer", "worker_died", "the candidate churn@{} fails: worker"),
        ("endless", "deadline", "the candidate churn@{} fails: the job ran past its deadline"),
        ("8", "ok", "compare of the candidate churn@{} fails: LookupError: compare has no table\nTraceback"),
    ],
    ids=["raises", "crashes", "endless", "compare"],
)
def test_failing_shadow_costs_no_client_anything(
    bench: Bench, content: str, outcome: str, log: str, caplog: pytest.LogCaptureFixture
) -> None:
    version = bench.try_candidate("churn", content)
    plus = 5 if content == "8" else 0  # then `compare` gets 13
    labels = {"http_route": "/number", "variant": "candidate", "outcome": outcome}
    before = bench.count("tinysvc_candidate_requests_total", **labels)

    def has_failed() -> bool:
        assert bench.client.get(f"/number?plus={plus}").json() == 1 + plus
        return bench.count("tinysvc_candidate_requests_total", **labels) > before

    wait_until(has_failed, "a shadow ends")
    assert log.format(version) in caplog.text
    wait_until(lambda: bench.client.get("/readyz").status_code == 200, "all workers are there again")


def test_candidate_that_cannot_be_opened_leaves_the_served_version_alone(bench: Bench) -> None:
    version = publish(bench.store, "churn", "insane", "candidate")
    wait_until(lambda: f"churn@{version}" in str(bench.artifact("churn@candidate").get("problem")), "it is refused")
    assert bench.client.get("/number").json() == 1
    response = bench.client.get("/readyz")
    assert response.status_code == 200
    assert "problem" not in response.json()["artifacts"]["churn@production"]


def test_fractions_are_even_and_differ_between_candidates() -> None:
    values = [fraction_of(f"user {number}", b"churn@candidate") for number in range(1000)]
    assert 0 <= min(values) <= max(values) < 1
    assert 400 < sum(value < 0.5 for value in values) < 600
    assert values != [fraction_of(f"user {number}", b"words@candidate") for number in range(1000)]


def test_cache_beside_a_share_is_refused(tmp_path: Path) -> None:
    @cpu_resource
    def loaded(model: Annotated[Path, Artifact("churn@1"), Artifact("churn@2", share=0.1)]) -> str:
        return ""

    @cpu_route("/", cache=Cache(1))
    def handler(loaded: str) -> str:
        return loaded

    publish(store_in(tmp_path))
    with (
        pytest.raises(ConfigurationError, match=r"has cache=, and its candidate Artifact\('churn@2'\) has share="),
        serving(Service(handler, loaded), cpu_workers=0, models=f"{tmp_path}/models"),
    ):
        pass
