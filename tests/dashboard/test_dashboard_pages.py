"""dashboard_pages.py: a real server; who sees the page, its events, and its buttons."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import trouble_app as app
from commands import served, tinysvc
from dashboards import document_when, events
from scrapes import scrape
from tinysvc import ConfigurationError, Request, Response, Service
from tinysvc.core.responses import Handler
from tinysvc.dashboard import live
from tinysvc.testing import serving

SERVICE = Service(app.fine, app.slow, app.broken, app.compute, app.crash, app.operator, app.settings)
AUTHORIZED = {"authorization": f"Bearer {app.TOKEN}"}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.1)


@pytest.fixture
def url() -> Iterator[str]:
    with serving(SERVICE, dashboard=True, raise_errors=False) as url:
        yield url


def test_page_is_off_by_default() -> None:
    with serving(SERVICE, cpu_workers=1) as url:
        assert httpx.get(f"{url}/dashboard").status_code == 404


def test_page_and_its_events_are_served(url: str) -> None:
    page = httpx.get(f"{url}/dashboard")
    assert page.status_code == 200
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    httpx.get(f"{url}/fine")
    document = document_when(url, lambda document: document["total"]["requests"])
    assert document["process"] == os.getpid()
    assert [row["count"] for row in document["routes"] if row["route"] == "GET /fine"] == [1]
    assert {row["route"]: row["kind"] for row in document["routes"]}["GET /compute"] == "cpu"
    assert [worker["state"] for worker in document["workers"]] == ["idle", "idle"]
    assert all(worker["pid"] and worker["memory"] for worker in document["workers"])
    assert document["findings"] == []
    assert next(events(url))[0] == "charts"


def test_details_are_not_shown_to_prometheus() -> None:
    with serving(SERVICE, dashboard=True, metrics="/metrics") as url:
        scrape(f"{url}/metrics")
        assert "dashboard" not in httpx.get(f"{url}/metrics").text


def test_errors_are_listed_with_their_request(url: str) -> None:
    httpx.get(f"{url}/broken", headers={"x-request-id": "my-id"})
    (error,) = document_when(url, lambda document: document["errors"])["errors"]
    assert (error["route"], error["status"], error["error"]) == ("GET /broken", 500, "ValueError")
    assert (error["text"], error["request"]) == ("<b>no</b> price", "my-id")


def test_worker_shows_what_it_runs(url: str) -> None:
    headers = {"x-request-id": "my-job"}
    job = threading.Thread(target=httpx.get, args=[f"{url}/compute?seconds=1"], kwargs={"headers": headers})
    job.start()
    document = document_when(url, lambda document: any(each["runs"] for each in document["workers"]))
    job.join()
    (worker,) = (each for each in document["workers"] if each["runs"])
    assert (worker["runs"], worker["request"], worker["state"]) == ("GET /compute", "my-job", "busy")


def test_route_that_blocks_the_event_loop_is_named() -> None:
    with serving(Service(app.fine, app.block), dashboard=True) as url:
        httpx.get(f"{url}/block")
        document = document_when(url, lambda document: document["findings"])
    text = "GET /block blocks the event loop: no other request is served meanwhile."
    assert text in [finding["text"] for finding in document["findings"]]


def press(url: str, verb: str, worker: dict[str, object], **headers: str) -> httpx.Response:
    """Press a button of a worker."""
    query = {"process": worker["process"], "pool": worker["pool"], "worker": worker["number"]}
    return httpx.post(f"{url}/dashboard/{verb}", params=query, headers=headers)  # type: ignore[arg-type]


def test_stacks_of_a_worker_name_its_function(url: str) -> None:
    job = threading.Thread(target=httpx.get, args=[f"{url}/compute?seconds=2"])
    job.start()
    document = document_when(url, lambda document: any(each["runs"] for each in document["workers"]))
    (worker,) = (each for each in document["workers"] if each["runs"])
    stacks = press(url, "stacks", worker)
    assert stacks.status_code == 200
    assert re.search(r"trouble_app\.py.* in compute", stacks.text)
    job.join()


def test_replaced_worker_has_a_successor(url: str) -> None:
    worker = document_when(url, lambda document: document["workers"])["workers"][0]
    assert press(url, "replace", worker).status_code == 204
    changed = document_when(url, lambda document: sorted(each["number"] for each in document["workers"]) == [2, 3])
    assert changed["pools"][0]["ends"] == {"replaced": 1}
    assert press(url, "replace", worker).status_code == 404
    assert press(url, "stacks", worker).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"process": 1}, 404),
        ({"process": "x"}, 404),
        ({"pool": "other"}, 404),
        ({"number": "x"}, 404),
        ({"number": "9" * 30}, 404),
    ],
)
def test_other_worker_is_refused(url: str, change: dict[str, object], status: int) -> None:
    worker = {"process": os.getpid(), "pool": "default", "number": 1, **change}
    for verb in ("stacks", "replace"):
        assert press(url, verb, worker).status_code == status


def test_button_of_another_site_is_refused(url: str) -> None:
    worker = {"process": os.getpid(), "pool": "default", "number": 1}
    assert press(url, "replace", worker, origin="http://evil.example").status_code == 403


def test_data_is_for_clients_on_this_machine(url: str) -> None:
    for headers in ({"x-forwarded-for": "192.0.2.1"}, {"host": "evil.example"}):
        assert httpx.get(f"{url}/dashboard/events", headers=headers).status_code == 403
        worker = {"process": os.getpid(), "pool": "default", "number": 1}
        assert press(url, "replace", worker, **headers).status_code == 403


def test_guard_decides_who_sees_the_data() -> None:
    with serving(SERVICE, dashboard=True, dashboard_guard="operator", cpu_workers=1) as url:
        assert httpx.get(f"{url}/dashboard").status_code == 200
        assert httpx.get(f"{url}/dashboard/events").status_code == 401
        assert httpx.get(f"{url}/dashboard/events", headers={"authorization": "Bearer no"}).status_code == 403
        worker = {"process": os.getpid(), "pool": "default", "number": 1}
        assert press(url, "stacks", worker).status_code == 401
        elsewhere = {**AUTHORIZED, "x-forwarded-for": "192.0.2.1", "host": "shop.example"}
        assert document_when(url, lambda document: document["workers"], **elsewhere)


@pytest.mark.parametrize("name", ["nothing", "settings"])
def test_guard_that_cannot_refuse_is_a_mistake(name: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="dashboard_guard"),
        serving(SERVICE, dashboard=True, dashboard_guard=name, cpu_workers=1),
    ):
        pass


def test_page_is_behind_the_middleware_of_the_service() -> None:
    async def closed(request: Request, call_next: Handler) -> Response:
        return Response(b"", 404)

    with serving(Service(app.fine, middleware=[closed]), dashboard=True) as url:
        for path in ("/dashboard", "/dashboard/events"):
            assert httpx.get(f"{url}{path}").status_code == 404


def test_events_pass_through_middleware() -> None:
    async def open_to_all(request: Request, call_next: Handler) -> Response:
        return await call_next(request)

    with serving(Service(app.fine, middleware=[open_to_all]), dashboard=True) as url:
        assert document_when(url, lambda document: document["routes"])


def test_route_of_the_service_comes_before_the_page() -> None:
    from tinysvc import io_route

    @io_route("/dashboard")
    async def own() -> str:
        return "own"

    with serving(Service(own), dashboard=True) as url:
        assert httpx.get(f"{url}/dashboard").text == "own"


def test_open_page_does_not_hold_the_drain() -> None:
    with serving(SERVICE, dashboard=True, cpu_workers=1) as url:
        stream = events(url)
        next(stream)
        begin = time.monotonic()
    assert time.monotonic() - begin < 8  # shutdown_timeout is 10 s
    assert all(name for name, _ in stream)


def test_page_more_than_the_limit_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.dashboard.dashboard_pages.MAX_VIEWERS", 1)
    stream = events(url)
    next(stream)
    assert httpx.get(f"{url}/dashboard/events").status_code == 503
    stream.close()  # type: ignore[attr-defined]
    assert document_when(url, lambda document: document["time"])


PROCESSES = """
from tinysvc import cpu_route

@cpu_route("/wait")
def wait(seconds: float = 0.0) -> None:
    import time

    time.sleep(seconds)
"""


def test_any_process_shows_and_presses_the_buttons_of_all(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(PROCESSES)
    arguments = tinysvc("waits.py", "--workers", "2", "--cpu-workers", "2", "--dashboard")
    with served(*arguments, cwd=tmp_path) as server:
        document = document_when(server.url, lambda document: len(document["workers"]) == 2)
        assert len(document["processes"]) == 2
        assert document["process"] in document["processes"]
        for worker in document["workers"]:  # at least one belongs to a process that does not respond itself
            assert press(server.url, "stacks", worker).status_code == 200
            assert press(server.url, "replace", worker).status_code == 204
        numbers = [2, 2]
        document_when(server.url, lambda document: [each["number"] for each in document["workers"]] == numbers)
        gone = {**document["workers"][0], "number": 7}
        assert press(server.url, "stacks", gone).status_code == 404
