"""The example `training`: the network, the job over HTTP, a server that is killed, and the page in a browser."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from browser import Page, chromium, needs_browser
from commands import Served, served
from system import is_alive, wait_until
from tinysvc import HTTPError, Job, Models
from tinysvc.testing import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from training import network, routes

TRAINING = Path(__file__).parents[1] / "examples" / "training" / "routes.py"
SPIRALS = network.spirals(60)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = str(tmp_path_factory.mktemp("models"))
    with serving(str(TRAINING), cpu_workers=1, raise_errors=False, jobs_page=True, models=store) as url:
        yield url


@pytest.fixture
def models(tmp_path: Path) -> Models:
    """A store of its own, for a training that the test calls as a function."""
    return Models(str(tmp_path / "store"))


def submitted(url: str, content: bytes = SPIRALS, **query: Any) -> str:
    """The URL of a new training."""
    response = httpx.post(f"{url}/trainings", content=content, params=query, timeout=20)
    assert response.status_code == 202, response.text
    return url + response.headers["location"]


def document(job: str) -> Any:
    return httpx.get(job, timeout=20).json()


def wait_for_epochs(job: str, count: int) -> None:
    wait_until(lambda: document(job)["values"].get("epoch", 0) >= count, f"{count} epochs are over")


@contextmanager
def long_training(url: str) -> Iterator[str]:
    """The URL of a training that runs until it is cancelled, at the end of the block at the latest."""
    job = submitted(url, epochs=100_000)
    try:
        wait_for_epochs(job, 2)
        yield job
    finally:
        assert httpx.delete(job, timeout=20).status_code == 200


# The network


def test_network_learns_the_spirals(models: Models) -> None:
    summary = routes.train(network.spirals(200), Job(), models, epochs=40)
    assert (summary.rows, summary.labels, summary.went_on_from) == (600, ["blue", "green", "red"], 0)
    assert summary.accuracy > 0.9


def test_training_that_goes_on_gives_the_same_network(models: Models) -> None:
    whole = routes.train(SPIRALS, Job(), models, epochs=6)
    job = Job()
    routes.train(SPIRALS, job, models, epochs=2)
    rest = routes.train(SPIRALS, job, models, epochs=6)
    assert (rest.went_on_from, rest.loss, rest.accuracy) == (2, whole.loss, whole.accuracy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The table has 0 rows"),
        (b"a,b,c\n1,2,x\n", "The table has 1 rows"),
        (b"1,2,x\n" * 5 + b"1,x\n", "Row 6 is no list of numbers"),
        (b"1,2,x\n" * 5 + b"1,nan,x\n", "Row 6 is no list of numbers"),
        (b"x\n" * 9, "Row 1 is no list of numbers"),
    ],
)
def test_wrong_table_is_named(models: Models, content: bytes, message: str) -> None:
    with pytest.raises(HTTPError, match=f"422 {message}"):
        routes.train(content, Job(), models)


def test_training_without_numpy_names_the_package(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "HAS_NUMPY", False)
    with pytest.raises(HTTPError, match=r"501 .*pip install 'tinysvc\[examples\]'"):
        routes.train(SPIRALS, Job(), models)


# The job


def test_training_has_a_result(url: str) -> None:
    response = httpx.post(
        f"{url}/trainings",
        content=httpx.get(f"{url}/spirals.csv?count=60").content,
        params={"epochs": 3},
        headers={"Prefer": "wait=20"},
        timeout=30,
    )
    assert (response.status_code, response.json()["epochs"], response.json()["rows"]) == (200, 3, 180)


def test_wrong_table_fails_at_once(url: str) -> None:
    job = submitted(url, b"no table")
    wait_until(lambda: document(job)["state"] == "failed", "the training has failed")
    assert document(job)["used"] == 1
    result = httpx.get(f"{job}/result")
    assert (result.status_code, result.json()["detail"][:19]) == (422, "The table has 0 row")


def test_cancel_stops_a_training(url: str) -> None:
    with long_training(url) as job:
        process = document(job)["values"]["process"]
        assert httpx.delete(job, timeout=20).json()["state"] == "cancelled"
        assert not is_alive(process)
    assert document(job)["attempts"][-1]["cause"] == "cancelled"


def test_dead_worker_uses_one_attempt(url: str) -> None:
    with long_training(url) as job:
        os.kill(document(job)["values"]["process"], signal.SIGKILL)
        wait_until(lambda: document(job)["state"] == "scheduled", "another attempt is scheduled")
        assert [each["cause"] for each in document(job)["attempts"]] == ["worker-died"]
        assert document(job)["has_saved"]


def test_killed_server_goes_on_where_it_was(models: Models, tmp_path: Path) -> None:
    def server() -> Any:
        return served("-m", "tinysvc", str(TRAINING), "--port", "0", "--cpu-workers", "1", cwd=tmp_path)

    first: Served
    with server() as first:
        job = submitted(first.url, epochs=40, pause=0.03)
        wait_for_epochs(job, 5)
        first.process.kill()
        first.process.wait()
    with server() as second:
        job = job.replace(first.url, second.url)
        wait_until(lambda: document(job)["state"] == "succeeded", "the training has ended")
        summary = httpx.get(f"{job}/result").json()
        assert (summary["epochs"], document(job)["attempts"][0]["cause"]) == (40, "server-died")
        assert summary["went_on_from"] >= 5
        assert summary["loss"] == routes.train(SPIRALS, Job(), models, epochs=40).loss  # as if nothing had happened


# The pages


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@contextmanager
def opened(browser: Page, url: str) -> Iterator[Page]:
    page = browser.tab(url)
    yield page
    assert [each for each in page.events if each["method"] == "Runtime.exceptionThrown"] == []
    page.close()


@needs_browser
@pytest.mark.browser
def test_page_trains_and_cancels(browser: Page, url: str, tmp_path: Path) -> None:
    with opened(browser, url) as page:
        page.run("document.querySelector('#epochs').value = 3")
        page.run("document.querySelector('form').requestSubmit()")
        page.until("document.querySelector('li.succeeded:first-child')")
        assert page.run("document.querySelector('li progress').value") == 1
        assert "epoch 3 · loss " in page.text("li .text")
        (tmp_path / "wrong.csv").write_text("no table")
        page.choose_files("#table", tmp_path / "wrong.csv")
        page.run("document.querySelector('form').requestSubmit()")
        page.until("document.querySelector('li.failed:first-child')")
        assert "The table has 0 rows" in page.text("li.failed .text")
        page.run("document.querySelector('#table').value = ''")
        page.run("document.querySelector('#epochs').value = 100000")
        page.run("document.querySelector('form').requestSubmit()")
        page.until("document.querySelector('li.running')?.textContent.includes('epoch')")
        page.run("document.querySelector('li.running button').click()")
        page.until("document.querySelector('li.cancelled:first-child')")
    assert httpx.get(f"{url}/trainings").json()["counts"]["running"] == 0


@needs_browser
@pytest.mark.browser
def test_jobs_page_shows_and_cancels_a_training(browser: Page, url: str) -> None:
    with long_training(url) as job, opened(browser, f"{url}/jobs#state=running") as page:
        row = f"[...document.querySelectorAll('.job')].find((each) => each.textContent.includes('{job[-32:]}'))"
        page.until(f"{row}?.querySelector('.values').textContent.includes('loss ')")
        page.run(f"{row}.querySelector('button').click()")
        page.run("document.querySelector('#page-confirm [value=yes]').click()")
        page.until(f"!{row}")
        page.run("document.querySelector('[data-state=cancelled]').click()")
        page.until(row)
    assert document(job)["attempts"][-1]["cause"] == "cancelled"
