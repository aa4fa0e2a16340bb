"""jobs_page/: the page in a real browser, with mouse and keyboard, on a wide and a narrow screen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from browser import Page, chromium, needs_browser
from contrast import LEAST_CONTRAST
from jobs_page_app import TOKEN, service_of
from memory_store import MemoryStore
from tinysvc.jobs.records import Failure, NewJob, Progress, ResultHead
from tinysvc.testing import serving

pytestmark = [pytest.mark.browser, needs_browser]

FAILED = {"type": "urn:tinysvc:worker-died", "status": 500, "detail": "<b>The worker</b> was killed by SIGSEGV."}


def now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a method of the store, which never waits."""
    return asyncio.run(coroutine)


def submitted(store: MemoryStore, route: str = "/trainings", **options: Any) -> str:
    return str(now(store.submit(NewJob(route=route, path=route, request=b"", **options))).record.id)


def started(store: MemoryStore, route: str = "/trainings") -> str:
    """The id of a new job that runs."""
    job_id = submitted(store, route, priority=9)
    (claimed,) = now(store.claim({route: 1}, 1))
    assert claimed.record.id == job_id
    return job_id


def failed(store: MemoryStore) -> str:
    job_id = started(store)
    now(store.fail(job_id, 1, Failure("worker-died", "SIGSEGV", problem=FAILED)))
    return job_id


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def page(browser: Page, store: MemoryStore) -> Iterator[Page]:
    with serving(service_of(store)) as url:
        page = browser.tab(f"{url}/jobs")
        page.look()
        page.until("document.querySelector('#page-found').textContent")
        yield page
        assert page.problems(url) == []
        page.close()


def row(job_id: str) -> str:
    """A script's expression for the row of a job, or undefined."""
    return f"[...document.querySelectorAll('.job')].find((each) => each.textContent.includes('{job_id}'))"


def shown(page: Page) -> list[str]:
    """The short id of each row."""
    found: list[str] = page.run("[...document.querySelectorAll('.job .name small')].map((each) => each.textContent)")
    return found


def wait_until_shown(page: Page, *job_ids: str) -> None:
    """Wait until the rows are those of these jobs, in this order."""
    short = ",".join(job_id[:8] for job_id in job_ids)
    page.until(
        f"[...document.querySelectorAll('.job .name small')].map((each) => each.textContent).join() === '{short}'"
    )


def click(page: Page, job_id: str, text: str) -> None:
    page.run(f"[...{row(job_id)}.querySelectorAll('button')].find((each) => each.textContent === '{text}').click()")


def confirm(page: Page, value: str = "yes") -> None:
    page.run(f"document.querySelector('#page-confirm [value={value}]').click()")


# The list


def test_page_follows_the_progress_of_a_job(page: Page, store: MemoryStore) -> None:
    assert page.text("#page-found") == "No jobs"
    job_id = started(store)
    page.until(row(job_id))
    assert page.run(f"{row(job_id)}.className") == "job running"
    now(store.progress(job_id, 1, Progress(fraction=0.25, values={"epoch": 3, "loss": 0.123456})))
    page.until(f"{row(job_id)}.querySelector('.bar').style.width === '25%'")
    assert page.run(f"{row(job_id)}.querySelector('[role=progressbar]').getAttribute('aria-valuenow')") == "25"
    assert page.text(".values") == "epoch 3 · loss 0.1235"
    now(store.finish(job_id, 1, ResultHead(status=200, content_type="text/plain"), b"done"))
    page.until(f"{row(job_id)}.matches('.succeeded')")
    assert page.run(f"{row(job_id)}.querySelector('a').getAttribute('href')") == f"/trainings/{job_id}/result"


def test_states_are_counted_and_filtered(page: Page, store: MemoryStore) -> None:
    broken, waiting = failed(store), submitted(store, "/imports")
    wait_until_shown(page, waiting, broken)
    buttons = "[...document.querySelectorAll('#page-states button')].map((each) => each.textContent).join()"
    assert page.run(buttons) == "all2,running0,queued1,scheduled0,failed1,succeeded0,cancelled0"
    page.run("document.querySelector('[data-state=failed]').click()")
    wait_until_shown(page, broken)
    assert page.run("document.querySelector('[aria-pressed=true]').dataset.state") == "failed"
    assert page.run("location.hash") == "#state=failed"
    page.run("document.querySelector('[data-state=\"\"]').click()")
    wait_until_shown(page, waiting, broken)
    page.run("""(() => {
        const route = document.getElementById('page-route');
        route.value = '/imports';
        route.dispatchEvent(new Event('input'));
    })()""")
    wait_until_shown(page, waiting)


def test_link_keeps_the_filter(browser: Page, page: Page, store: MemoryStore) -> None:
    failed(store), submitted(store)
    url = page.run("location.origin")
    linked = browser.tab(f"{url}/jobs#state=queued&route=/trainings")
    linked.until("document.querySelectorAll('.job').length == 1")
    assert linked.run("document.querySelector('.job').className") == "job queued"
    assert linked.run("document.getElementById('page-route').value") == "/trainings"
    linked.close()


def test_more_shows_older_jobs(page: Page, store: MemoryStore) -> None:
    for _ in range(60):
        submitted(store)
    page.until("document.querySelector('#page-found').textContent === 'The newest 50 jobs'")
    page.run("document.getElementById('page-more').click()")
    page.until("document.querySelectorAll('.job').length == 60")
    assert page.run("document.getElementById('page-more').hidden")


def test_texts_of_a_job_are_never_html(page: Page, store: MemoryStore) -> None:
    job_id = failed(store)
    page.until(row(job_id))
    assert page.text(".job .error") == FAILED["detail"]
    page.run("document.querySelector('.more').open = true")
    assert page.text(".facts dd:last-child").endswith("worker-died: SIGSEGV")


def test_row_keeps_focus_and_details_while_the_list_changes(page: Page, store: MemoryStore) -> None:
    job_id = started(store)
    page.until(row(job_id))
    page.run(f"{row(job_id)}.querySelector('.more').open = true")
    page.run(f"{row(job_id)}.querySelector('button').focus()")
    newer = submitted(store)
    wait_until_shown(page, newer, job_id)
    assert page.run(f"{row(job_id)}.contains(document.activeElement) && {row(job_id)}.querySelector('.more').open")


def test_job_of_a_removed_route_is_an_orphan(page: Page, store: MemoryStore) -> None:
    job_id = submitted(store, "/old")
    page.until(row(job_id))
    assert page.text(".job .error") == "The service has no route /old any more: the job waits for it."
    assert page.run("[...document.querySelectorAll('.choices > *')].every((each) => each.hidden)")


def test_problem_of_the_store_is_shown(page: Page, store: MemoryStore) -> None:
    store.problem = "the disk is full"
    page.until("!document.getElementById('page-problem').hidden")
    assert page.text("#page-problem") == "The store cannot write: the disk is full"
    store.problem = ""
    page.until("document.getElementById('page-problem').hidden")


def test_missing_server_is_reported(page: Page, store: MemoryStore) -> None:
    job_id = submitted(store)
    page.until(row(job_id))
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.ask("Network.emulateNetworkConditions", offline=True, **offline)
    page.until("document.querySelector('#page-problem').textContent.startsWith('The list is not up to date: ')")
    page.ask("Network.emulateNetworkConditions", offline=False, **offline)
    page.until("document.getElementById('page-problem').hidden")
    assert shown(page) == [job_id[:8]]


# Cancel and retry


def test_cancel_asks_first(page: Page, store: MemoryStore) -> None:
    job_id = started(store)
    page.until(row(job_id))
    click(page, job_id, "Cancel")
    assert page.text("#confirm-text") == f"/trainings {job_id[:8]}: its process is killed."
    confirm(page, "no")
    assert store.records[job_id].state == "running"
    click(page, job_id, "Cancel")
    confirm(page)
    page.until(f"{row(job_id)}.matches('.cancelled')")
    assert store.records[job_id].state == "cancelled"


def test_retry_starts_a_failed_job_again(page: Page, store: MemoryStore) -> None:
    job_id = failed(store)
    page.until(row(job_id))
    click(page, job_id, "Retry")
    page.until(f"{row(job_id)}.matches('.queued')")
    assert store.records[job_id].used == 0


def test_failed_job_is_dismissed(page: Page, store: MemoryStore) -> None:
    job_id = failed(store)
    page.until(row(job_id))
    click(page, job_id, "Dismiss")
    assert page.text("#confirm-title") == "Dismiss the job?"
    assert page.text("#confirm-text") == f"/trainings {job_id[:8]}: it is deleted at the end of its retention."
    confirm(page)
    page.until(f"{row(job_id)}.matches('.cancelled')")
    assert page.run(f"[...{row(job_id)}.querySelectorAll('.choices > *')].every((each) => each.hidden)")


def test_route_that_is_guarded_asks_for_credentials(page: Page, store: MemoryStore) -> None:
    job_id = submitted(store, "/imports")
    page.until(row(job_id))
    click(page, job_id, "Cancel")
    confirm(page)
    page.until("document.getElementById('page-secret').open && document.querySelector('.job [role=alert]')")
    assert page.text(".job [role=alert]") == "401: A token is missing."
    page.run("document.getElementById('secret-value').focus()")
    page.type(f"{TOKEN}\n")
    page.until("document.querySelector('#page-authorize').matches('.given')")
    click(page, job_id, "Cancel")
    confirm(page)
    page.until(f"{row(job_id)}.matches('.cancelled')")
    assert not page.run("document.querySelector('.job [role=alert]')")


# Accessibility


def test_job_is_cancelled_with_the_keyboard_only(page: Page, store: MemoryStore) -> None:
    job_id = started(store)
    page.until(row(job_id))
    for _ in range(20):
        page.type("\t")
        if page.run("document.activeElement.matches('.job button')"):
            break
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert page.run("document.activeElement.getAttribute('aria-label')") == f"Cancel /trainings {job_id[:8]}"
    page.type("\n")
    page.until("document.getElementById('page-confirm').open")
    page.type("\n")
    page.until(f"{row(job_id)}.matches('.cancelled')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 360])
def test_contrast_and_width_on_every_screen(page: Page, store: MemoryStore, scheme: str, width: int) -> None:
    """The contrast of every text is at least 4.5 (WCAG 2.2, 1.4.3), and the page has no horizontal scroll bar."""
    page.look(width, 740, scheme)
    done = started(store)
    now(store.finish(done, 1, ResultHead(status=200, content_type=None), b""))
    running = started(store)
    now(store.progress(running, 1, Progress(fraction=0.5, values={"step": 1, "note": "w" * 99})))
    for _ in (failed(store), submitted(store), submitted(store, "/old")):
        pass
    now(store.cancel(submitted(store)))
    page.until("document.querySelectorAll('.job').length == 6")
    page.run("document.querySelectorAll('.more').forEach((each) => each.open = true)")
    ratio, where = page.run(LEAST_CONTRAST)
    assert ratio >= 4.5, where
    assert page.run("document.documentElement.scrollWidth") <= width
    light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 248)"
    assert light == (scheme == "light")


def test_every_control_has_a_name(page: Page, store: MemoryStore) -> None:
    failed(store), started(store)
    page.until("document.querySelectorAll('.job').length == 2")
    unlabelled = "[...document.querySelectorAll('input, select')].filter((each) => !each.labels.length)"
    assert page.run(f"{unlabelled}.map((each) => each.outerHTML)") == []
    names = page.run("[...document.querySelectorAll('.choices > :not([hidden])')].map((each) => each.ariaLabel)")
    assert len(set(names)) == len(names) == 3
    bars = page.run("[...document.querySelectorAll('[role=progressbar]:not([hidden])')].map((each) => each.ariaLabel)")
    assert all(bars)
