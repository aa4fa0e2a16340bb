"""page/: the dashboard in a real browser. Five kinds of trouble: the page must name the culprit."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import candidates_app
import trouble_app as app
from browser import Page, chromium, needs_browser
from contrast import LEAST_CONTRAST
from swap_pools import publish, store_in
from tinysvc import Service
from tinysvc.dashboard import live, own_process
from tinysvc.testing import serving

pytestmark = [pytest.mark.browser, needs_browser]

SERVICE = Service(
    app.fine, app.slow, app.broken, app.quote, app.compute, app.crash, app.leak, app.operator, app.settings
)
HEADLINE = "document.querySelector('#page-findings .said')?.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "INTERVAL", 0.2)
    monkeypatch.setattr(own_process, "LOOK", 0.1)


class Opened:
    """A service with its dashboard in a tab, and clients of the service."""

    def __init__(self, url: str, page: Page) -> None:
        self.url = url
        self.page = page
        self._threads = ThreadPoolExecutor(24)

    def get(self, path: str, times: int = 1) -> list[Future[httpx.Response]]:
        """Send requests at the same time."""
        return [self._threads.submit(httpx.get, f"{self.url}{path}", timeout=20) for _ in range(times)]

    def headline(self, begin: str) -> str:
        """The headline, when it begins so."""
        self.page.until(f"{HEADLINE}?.startsWith({begin!r})")
        return str(self.page.run(HEADLINE))


@contextmanager
def opened(browser: Page, service: Service = SERVICE, **options: Any) -> Iterator[Opened]:
    with serving(service, dashboard=True, raise_errors=False, **options) as url:
        page = browser.tab(f"{url}/dashboard")
        page.look()
        try:
            yield Opened(url, page)
            assert problems(page, url) == []
        finally:
            page.close()


@pytest.fixture
def dashboard(browser: Page) -> Iterator[Opened]:
    with opened(browser) as found:
        found.headline("All is well.")
        yield found


def problems(page: Page, url: str) -> list[Any]:
    """Requests to other servers, errors in the console and violations of the policy."""
    page.run("0")  # a round trip: all earlier events have arrived
    sent = [each["params"]["request"]["url"] for each in page.events if each["method"] == "Network.requestWillBeSent"]
    elsewhere = [each for each in sent if not each.startswith((url, "data:"))]
    thrown = [each for each in page.events if each["method"] == "Runtime.exceptionThrown"]
    logged = [each for each in page.events if each["method"] == "Log.entryAdded"]
    return elsewhere + thrown + [each for each in logged if each["params"]["entry"]["source"] != "network"]


def cell(key: str, column: int) -> str:
    """A script's expression for the text of a cell of the row whose head is `key`."""
    row = f"[...document.querySelectorAll('tbody tr')].find((each) => each.cells[0].textContent === {key!r})"
    return f"{row}?.cells[{column}].textContent"


# Five kinds of trouble


def test_headline_names_the_slow_route(dashboard: Opened) -> None:
    dashboard.get("/fine", 20), dashboard.get("/slow", 5)
    assert "GET /slow is slow" in dashboard.headline("GET /slow")


def test_headline_names_the_saturated_pool_and_its_route(dashboard: Opened) -> None:
    dashboard.get("/compute?seconds=1", 16)
    headline = dashboard.headline("The pool default is saturated")
    assert headline.endswith("2 of the workers run GET /compute.")


def test_headline_names_the_route_that_crashes_workers(dashboard: Opened) -> None:
    dashboard.get("/fine", 20)
    for _ in range(4):
        dashboard.get("/crash")[0].result()
    headline = dashboard.headline("Workers of the pool default end again and again")
    assert "crashed), while they ran GET /crash" in headline


def test_headline_names_the_leaking_worker(browser: Page) -> None:
    with opened(browser, cpu_workers=1) as dashboard:
        stop = threading.Event()

        def use() -> None:
            while not stop.wait(0.1):
                httpx.get(f"{dashboard.url}/leak")

        user = threading.Thread(target=use)
        user.start()
        headline = dashboard.headline("Worker 1 of the pool default leaks")
        stop.set()
        user.join()
        assert "its memory has grown by " in headline


def test_headline_names_the_service_that_is_down(browser: Page) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen: connections are refused
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with opened(browser, services=f"prices={address}") as dashboard:
            for _ in range(8):
                dashboard.get("/quote")[0].result()
            headline = dashboard.headline("The service prices is down")
            assert headline == f"The service prices is down: {address} does not respond."
            assert "GET /quote" in dashboard.page.text("#page-findings .why")


# The tables and the buttons


def test_tables_follow_the_service(dashboard: Opened) -> None:
    page = dashboard.page
    dashboard.get("/fine", 5), dashboard.get("/broken", 3)
    page.until(f"{cell('GET /broken', 5)} === '3 of 3'")
    assert page.run(cell("GET /fine", 1)) == "io"
    dashboard.headline("GET /broken fails: 3 of 3 requests")
    page.until("/^[(][0-9]+[)] Dashboard$/.test(document.title)")
    assert "ValueError: <b>no</b> price" in page.text("#page-errors")
    assert page.run("document.querySelector('tr.marked').cells[0].textContent") == "GET /broken"
    dashboard.get("/compute?seconds=2", 1)
    page.until(f"{cell('default 1', 2)} === 'GET /compute' || {cell('default 2', 2)} === 'GET /compute'")
    assert page.run("document.querySelector('#page-services').closest('section').hidden")
    assert page.run("document.querySelectorAll('.chart').length") > 4


def test_stacks_are_shown_in_a_dialog_with_the_keyboard_only(dashboard: Opened) -> None:
    page = dashboard.page
    dashboard.get("/compute?seconds=3", 2)
    page.until(f"{cell('default 1', 2)} === 'GET /compute'")
    page.run("document.querySelector('#page-workers [role=region]').focus()")
    page.type("\t")
    assert page.run("document.activeElement.ariaLabel") == "Stacks of worker default 1"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.type("\n")
    page.until("document.querySelector('#stacks-text').textContent.includes('in compute')")
    assert page.text("#stacks-title") == "Stacks of worker default 1, which runs GET /compute"
    page.type("\x1b")
    page.until("!document.getElementById('page-stacks').open")
    assert page.run("document.activeElement.ariaLabel") == "Stacks of worker default 1"


def test_button_replaces_a_worker(dashboard: Opened) -> None:
    page = dashboard.page
    page.until(cell("default 1", 0))
    page.run("document.querySelector('[aria-label=\"Replace worker default 1\"]').click()")
    page.until(cell("default 3", 0))
    page.until(f"!({cell('default 1', 0)})")


def test_guarded_page_asks_for_credentials(browser: Page) -> None:
    with opened(browser, dashboard_guard="operator", cpu_workers=1) as dashboard:
        page = dashboard.page
        page.until("document.getElementById('page-secret').open")
        assert page.text("#page-problem").startswith("The page is not up to date: 401")
        page.run("document.getElementById('secret-value').focus()")
        page.type(f"Bearer {app.TOKEN}\n")
        dashboard.headline("All is well.")
        page.until("document.getElementById('page-problem').hidden")


def test_lost_server_is_reported(browser: Page) -> None:
    with serving(SERVICE, dashboard=True, cpu_workers=1) as url:
        page = browser.tab(f"{url}/dashboard")
        page.until(HEADLINE)
    page.until("!document.getElementById('page-problem').hidden")
    assert page.text("#page-problem").startswith("The page is not up to date: ")
    page.until("document.getElementById('page-live').textContent === 'not live'")
    page.close()


# Accessibility


def fill(dashboard: Opened) -> None:
    """Make every part of the page visible."""
    dashboard.get("/broken", 4), dashboard.get("/fine", 9), dashboard.get("/compute?seconds=1", 6)
    dashboard.headline("GET /broken fails")
    dashboard.page.until("document.querySelectorAll('#page-errors tbody tr').length >= 4")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_width_on_every_screen(dashboard: Opened, scheme: str) -> None:
    """The contrast of every text is at least 4.5 (WCAG 2.2, 1.4.3), and the page has no horizontal scroll bar."""
    page = dashboard.page
    fill(dashboard)
    for width in (1280, 800, 360):
        page.look(width, 740, scheme)
        ratio, where = page.run(LEAST_CONTRAST)
        assert ratio >= 4.5, where
        assert page.run("document.documentElement.scrollWidth") <= width
    light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 248)"
    assert light == (scheme == "light")


def test_every_control_and_region_has_a_name(dashboard: Opened) -> None:
    page = dashboard.page
    fill(dashboard)
    unlabelled = "[...document.querySelectorAll('input')].filter((each) => !each.labels.length)"
    assert page.run(f"{unlabelled}.map((each) => each.outerHTML)") == []
    buttons = page.run("[...document.querySelectorAll('td button')].map((each) => each.ariaLabel)")
    assert len(set(buttons)) == len(buttons) == 4
    regions = page.run("[...document.querySelectorAll('[role=region]')].map((each) => each.ariaLabel)")
    assert len(set(regions)) == len(regions) == 8
    scrolled = "[...document.querySelectorAll('.scroll, pre')].every((each) => each.tabIndex === 0)"
    assert page.run(scrolled)  # a region that scrolls can be reached by keyboard
    assert page.run("[...document.querySelectorAll('svg')].every((each) => each.ariaLabel)")
    assert page.run("[...document.querySelectorAll('th')].every((each) => each.scope)")
    ids = page.run("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(set(ids)) == len(ids)
    levels = page.run("[...document.querySelectorAll('h1, h2')].map((each) => each.localName)")
    assert levels[0] == "h1"
    assert levels.count("h1") == 1


# Candidates


def test_candidate_is_shown_beside_the_version_that_serves(browser: Page, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish(store, "churn", "1"), publish(store, "churn", "4", "candidate"), publish(store, "words", "1")
    options = {"models": f"{tmp_path}/models", "models_interval": 0.05}
    with opened(browser, candidates_app.service, **options) as dashboard:
        shown = f"({cell('/number', 6)} === '3')"  # the mean difference
        while not dashboard.page.run(shown):
            assert dashboard.get("/number")[0].result().json() == 1
        assert dashboard.page.run(cell("/number", 1)) == "churn@candidate"
        assert re.fullmatch(r"(\d+) / \1", dashboard.page.run(cell("/number", 2)))
        assert dashboard.page.run(cell("/number", 5)) == "0 / 0"
