"""models/models.py: handlers and resources of every kind take the store of models by the type of a parameter."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import publishing_app
from http_ends import on_loop
from tinysvc import ConfigurationError, Models, Service, cpu_resource, cpu_route
from tinysvc.core.request_context import current_attempt, route_name
from tinysvc.core.settings import Settings
from tinysvc.models import publication
from tinysvc.models.errors import AliasMoved, BadReference, BlocksEventLoop, UnknownVersion
from tinysvc.models.models import author
from tinysvc.testing import serving

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("store") / "models"
    folder.mkdir()
    return Models(folder)


@pytest.fixture(scope="module")
def client(store: Models) -> Iterator[httpx.Client]:
    publishing_app.published(store, "first")
    with (
        serving(publishing_app.service, models=str(store._place[0]), cpu_workers=1, raise_errors=False) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def content(store: Models, version: int) -> str:
    folder = Path(store._place[0])
    [file] = store.manifest("churn", version).files
    return (folder / "churn" / "blobs" / file.sha256).read_text()


def test_io_handler_publishes(client: httpx.Client, store: Models) -> None:
    found = client.post("/io?content=from-io").json()
    assert content(store, found["version"]) == "from-io"
    assert store.alias("churn", "staging").version == found["version"]
    assert found["by"].startswith("POST /io (")
    assert found["by"].endswith(f") on {HOST}")


def test_blocking_methods_on_the_event_loop_are_refused(client: httpx.Client, store: Models) -> None:
    publish, versions, in_thread = client.get("/blocking").json()
    assert publish.endswith("write `async with`")
    assert "models.versions(...) blocks, and this code is on the event loop" in versions
    assert "await asyncio.to_thread(models.versions, ...)" in versions
    assert in_thread == str(store.versions("churn"))


def test_handler_in_a_thread_and_its_resources_take_the_store(client: httpx.Client, store: Models) -> None:
    before = store.versions("churn")
    found = client.get("/thread?content=from-thread").json()
    assert content(store, found["version"]) == "from-thread"
    assert (found["before"], found["at_start"]) == (before, repr(store))
    assert client.get("/thread?content=x", headers={"name": "other"}).json()["before"] == []


def test_cpu_handler_publishes_in_its_worker(client: httpx.Client, store: Models) -> None:
    found = client.post("/cpu?content=from-cpu").json()
    assert found["pid"] != os.getpid()
    assert content(store, found["version"]) == "from-cpu"
    assert found["by"].startswith("POST /cpu (")
    assert found["newest"] == [1]


def test_batch_publishes(client: httpx.Client, store: Models) -> None:
    found = client.post("/batch?content=from-batch").json()
    assert content(store, found["version"]) == "from-batch"


def test_called_handlers_publish(client: httpx.Client, store: Models) -> None:
    in_cpu, in_io = client.get("/calls?content=called").json()
    assert content(store, in_cpu["version"]) == content(store, in_io["version"]) == "called"


def test_job_publishes_under_its_id(client: httpx.Client, store: Models) -> None:
    found = client.post("/trainings?content=from-job", headers={"prefer": "wait=20"})
    assert found.status_code == 200
    job_id = found.headers["content-location"].split("/")[2]
    assert content(store, found.json()["version"]) == "from-job"
    assert found.json()["by"] == f"job /trainings (job {job_id} attempt 1) on {HOST}"


def test_failed_block_publishes_nothing(client: httpx.Client, store: Models) -> None:
    before = store.versions("churn")
    assert client.post("/failing").status_code == 500
    assert store.versions("churn") == before
    assert list(Path(store._place[0]).glob(".publishing/*")) == []


def test_handlers_and_resources_know_which_version_they_serve(client: httpx.Client) -> None:
    assert client.get("/served?reference=churn@1").json() == [1]
    assert client.get("/served?reference=churn@production").json() == [None]
    assert client.get("/first").json() == ["first is version 1", 1, None]
    assert client.get("/served?reference=churn").status_code == 500


def test_parameter_is_not_in_the_document(client: httpx.Client) -> None:
    parameters = client.get("/openapi.json").json()["paths"]["/io"]["post"]["parameters"]
    assert [each["name"] for each in parameters] == ["content"]


# The class


def test_store_without_a_service(store: Models) -> None:
    first = publishing_app.published(store, "a")["version"]
    second = publishing_app.published(store, "b")["version"]
    store.move_alias("churn", "canary", first, expected=0)
    moved = store.move_alias("churn", "canary", second, expected=first, by="ada")
    assert (moved.version, moved.by) == (second, "ada")
    with pytest.raises(AliasMoved):
        store.rollback("churn", "canary", expected=first)
    assert store.rollback("churn", "canary").version == first
    with pytest.raises(UnknownVersion):
        store.alias("churn", "nothing")
    assert pickle.loads(pickle.dumps(store)).versions("churn") == store.versions("churn")


def test_options_come_from_the_settings(tmp_path: Path) -> None:
    settings = Settings(models=str(tmp_path), models_keys="a.pem b.pem", models_signing_key="c.pem")
    assert Models.of_service(settings)._place == (str(tmp_path), ("a.pem", "b.pem"), "c.pem")


def test_served_version_comes_from_the_process(store: Models) -> None:
    serving_seven = store.with_served({"churn@production": 7}.get)
    assert serving_seven.served("churn@production") == 7
    assert serving_seven.served("churn@7") is None
    assert store.served("churn@production") is None
    with pytest.raises(BadReference):
        store.served("churn")


def test_author_is_the_code_that_publishes() -> None:
    assert author() == f"on {HOST}"
    route = route_name.set("job /trainings")
    attempt = current_attempt.set(("ab" * 16, 2))
    assert author() == f"job /trainings (job {'ab' * 16} attempt 2) on {HOST}"
    current_attempt.reset(attempt)
    route_name.reset(route)


@on_loop
async def test_plain_with_on_the_loop_is_refused(store: Models) -> None:
    with pytest.raises(BlocksEventLoop, match="write `async with`"), store.publish("churn"):
        pass


@on_loop
async def test_cancelled_block_publishes_nothing(store: Models) -> None:
    before = len(await asyncio.to_thread(store.versions, "churn"))
    entered = asyncio.Event()

    async def train() -> None:
        async with store.publish("churn") as new:
            (new.path / "weights.txt").write_text("half")
            entered.set()
            await asyncio.Event().wait()

    training = asyncio.create_task(train())
    await entered.wait()
    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training
    assert len(await asyncio.to_thread(store.versions, "churn")) == before
    assert list(Path(store._place[0]).glob(".publishing/*")) == []


@on_loop
async def test_publication_is_not_cancelled_in_the_middle(store: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the block publishes: a cancellation then waits for it."""
    publishing, go_on = asyncio.Event(), threading.Event()
    loop, publish = asyncio.get_running_loop(), publication.Publication._publish

    def slow(new: Any) -> None:
        loop.call_soon_threadsafe(publishing.set)
        assert go_on.wait(30)
        publish(new)

    monkeypatch.setattr(publication.Publication, "_publish", slow)
    found: list[Any] = []

    async def train() -> None:
        async with store.publish("churn") as new:
            (new.path / "weights.txt").write_text("whole")
            found.append(new)

    training = asyncio.create_task(train())
    await publishing.wait()
    training.cancel()
    loop.call_later(0.01, go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await training
    assert found[0].version in await asyncio.to_thread(store.versions, "churn")


def test_shared_resource_cannot_take_the_store() -> None:
    @cpu_resource(shared=True)
    def weights(models: Models) -> None: ...

    @cpu_route("/")
    def handler(weights: None) -> None: ...

    with pytest.raises(ConfigurationError, match=r"weights .* is shared.*leave out shared=True"):
        list(_plans(Service(weights, handler)))


def test_resource_named_like_the_parameter_goes_first() -> None:
    @cpu_resource
    def models() -> str:
        return "the author's own"

    @cpu_route("/")
    def handler(models: Models) -> None: ...

    [plan] = _plans(Service(models, handler))
    assert (list(plan.cpu_resources), plan.made_by_service) == (["models"], {})


def _plans(service: Service) -> list[Any]:
    from tinysvc.service.plan import plans_of

    return list(plans_of(service))
