"""The failure table of models, on real servers: whatever a new version does, the old one serves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import failed
from system import wait_until
from tinysvc.models.opening import open_store
from tinysvc.models.store import ModelStore
from tinysvc.testing import serving

APP = Path(__file__).parents[1] / "support" / "swapped_app.py"
INTERVAL = 0.05


class Published:
    """A server, and the store of its model `m`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: ModelStore = open_store(str(folder))
        self.url = ""

    def publish(self, number: int, *, alias: str = "production", **more: Any) -> int:
        """Publish a model with this number; return its version."""
        with self.store.publish("m", alias=alias) as new:
            (new.path / "model.json").write_text(json.dumps({"number": number, **more}))
        version: int = new.version
        return version

    def response(self, path: str = "/number") -> tuple[int, str]:
        """The number, and the version that the response names."""
        response = httpx.get(self.url + path, timeout=20)
        assert response.status_code == 200, response.text
        return response.json(), response.headers["x-artifact"]

    def ready(self) -> Any:
        response = httpx.get(f"{self.url}/readyz", timeout=20)
        assert response.status_code == 200, response.text
        return response.text

    def await_version(self, number: int, version: int) -> None:
        """Wait for the end of the swap: a response of the new version comes before it, from the first new worker."""
        wait_until(lambda: f'"version":{version}' in self.ready(), f"version {version} serves")
        assert self.response() == (number, f"m@{version}")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """One server for all tests; each leaves a version that works."""
    published = Published(tmp_path_factory.mktemp("models"))
    published.publish(1)
    options: dict[str, Any] = {"models": str(published.folder), "models_interval": INTERVAL, "raise_errors": False}
    with serving(str(APP), **options) as published.url:
        assert published.response() == (1, "m@1")
        yield published


# A new version that is not good


@pytest.mark.parametrize("fails", ["load", "memory", "check"])
def test_version_that_cannot_be_opened_does_not_serve(running: Published, fails: str) -> None:
    number, label = running.response()
    bad = running.publish(number + 1, fails=fails)
    wait_until(lambda: f"m@{bad}" in running.ready(), "the failure is reported")
    assert running.response() == (number, label)
    good = running.publish(number + 2)
    running.await_version(number + 2, good)
    assert f"m@{bad}" not in running.ready()


def test_version_that_crashes_workers_is_rolled_back(running: Published) -> None:
    number, label = running.response()
    bad = running.publish(number + 1, fails="job")
    wait_until(lambda: httpx.get(f"{running.url}/number").status_code == 500, "the new version crashes")

    def is_back() -> bool:
        response = httpx.get(f"{running.url}/number", timeout=20)
        return str(response.headers.get("x-artifact")) == label

    wait_until(is_back, "the old version serves again")
    assert f"m@{bad}" in running.ready()
    good = running.publish(number + 2)
    running.await_version(number + 2, good)


def test_damaged_version_is_refused(running: Published) -> None:
    number, label = running.response()
    bad = running.publish(number + 1, alias="")
    (entry,) = running.store.manifest("m", bad).files
    blob = running.folder / "m" / "blobs" / entry.sha256
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[::-1])
    running.store.move_alias("m", "production", bad)
    wait_until(lambda: f"m@{bad}" in running.ready(), "the refusal is reported")
    assert running.response() == (number, label)
    good = running.publish(number + 2)
    running.await_version(number + 2, good)


# The store


def test_store_that_is_away_costs_no_request(running: Published) -> None:
    number, label = running.response()
    away = running.folder / "m-away"
    (running.folder / "m").rename(away)
    wait_until(lambda: "problem" in running.ready(), "the trouble is reported")
    assert running.response() == (number, label)
    away.rename(running.folder / "m")
    wait_until(lambda: "problem" not in running.ready(), "the store is back")
    good = running.publish(number + 1)
    running.await_version(number + 1, good)


# Under load


def test_swaps_under_load_fail_no_request(running: Published) -> None:
    number, label = running.response()
    failures, seen, ended = [], [], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=running.url, timeout=20) as client:
            while not ended.is_set():
                response = client.get("/number")
                if response.status_code != 200:
                    failures.append(response.text)
                seen.append((response.json(), response.headers["x-artifact"]))

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    pairs = {(number, label)}
    try:
        for step in range(1, 5):
            version = running.publish(number + step)
            running.await_version(number + step, version)
            pairs.add((number + step, f"m@{version}"))
    finally:
        ended.set()
        for client in clients:
            client.join()
    assert failures == []
    assert set(seen) <= pairs  # the header names the version that has computed the response


def test_stream_ends_on_the_version_that_it_began_with(running: Published, tmp_path: Path) -> None:
    number, label = running.response()
    end = tmp_path / "end"
    with httpx.stream("GET", f"{running.url}/numbers", params={"end": str(end)}, timeout=20) as stream:
        assert stream.headers["x-artifact"] == label
        lines = stream.iter_lines()
        assert next(lines) == str(number)
        version = running.publish(number + 1)
        running.await_version(number + 1, version)
        assert {next(lines) for _ in range(20)} == {str(number)}
        end.touch()
        assert set(lines) <= {str(number)}


# The start


def test_service_without_its_model_does_not_start(tmp_path: Path) -> None:
    status, errors = failed("-m", "tinysvc", str(APP), "--port", "0", "--models", "none", cwd=tmp_path)
    assert status == 3
    assert "m@production" in errors
    assert "publish" in errors or "does not exist" in errors


def test_start_without_the_store_serves_the_last_version(tmp_path: Path) -> None:
    store, cache = tmp_path / "models", tmp_path / "cache"
    published = Published(store)
    published.publish(1)
    options: dict[str, Any] = {
        "models": str(store),
        "models_cache": str(cache),
        "cpu_workers": 1,
        "models_interval": INTERVAL,
    }
    with serving(str(APP), **options) as published.url:
        assert published.response() == (1, "m@1")
    store.rename(tmp_path / "away")
    with serving(str(APP), **options) as published.url:
        assert published.response() == (1, "m@1")
        wait_until(lambda: "problem" in published.ready(), "the trouble is reported")
        (tmp_path / "away").rename(store)
        version = published.publish(2)
        published.await_version(2, version)


# Several server processes
