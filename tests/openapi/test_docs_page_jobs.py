"""docs_page/durable.js: the page shows how a durable job goes on, and cancels and retries it, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import docs_jobs_app
from browser import Page, chromium, needs_browser
from contrast import LEAST_CONTRAST
from tinysvc import Service
from tinysvc.testing import serving

pytestmark = [pytest.mark.browser, needs_browser]

KEY = {"x-key": "sesame"}
JOB = "#train .durable"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Service(*docs_jobs_app.parts, name="works"), cpu_workers=1) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str, tmp_path: Path) -> Iterator[Page]:
    page = browser.tab(f"{url}/docs")
    page.look()
    page.until("document.querySelector('.route')")
    authorize(page, "sesame")
    yield page
    (tmp_path / "end").touch()  # a job that still runs would keep the only worker
    page.run("0")
    bad = [each for each in page.events if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert [each for each in bad if each["params"].get("entry", {}).get("source") != "network"] == []
    page.close()


def authorize(page: Page, key: str) -> None:
    page.run(f"""(() => {{
        const input = document.getElementById('secret-x-key');
        input.value = {json.dumps(key)};
        input.dispatchEvent(new Event('input', {{bubbles: true}}));
    }})()""")


def fill(page: Page, name: str, **values: str) -> None:
    """Open a route, and type values into the inputs of its parameters."""
    page.run(f"document.getElementById('{name}').open = true")
    page.until(f"document.querySelector('#{name} form')")
    for field, value in values.items():
        page.run(f"""(() => {{
            const input = document.querySelector('#{name} form [data-place$=".{field}"]');
            input.value = {json.dumps(value)};
            input.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()""")


def send(page: Page, name: str) -> None:
    page.run(f"document.querySelector('#{name} form').requestSubmit()")


def submit(page: Page, folder: Path) -> None:
    """Submit a job that waits for files in the folder, and wait until it runs."""
    fill(page, "train", user="7", folder=str(folder))
    send(page, "train")
    page.until(f"document.querySelector('{JOB}.running')")


def press(page: Page, label: str) -> None:
    page.until(f"{button(label)} && !{button(label)}.hidden && !{button(label)}.disabled")
    page.run(f"{button(label)}.click()")


def button(label: str) -> str:
    return f"[...document.querySelectorAll('{JOB} button')].find((each) => each.textContent === {json.dumps(label)})"


def until_text(page: Page, text: str) -> None:
    page.until(f"document.querySelector('{JOB}')?.innerText.includes({json.dumps(text)})")


def documents(url: str) -> list[Any]:
    found: list[Any] = httpx.get(f"{url}/users/7/trainings", headers=KEY).json()["jobs"]
    return found


def test_progress_is_shown_while_the_job_runs(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    until_text(page, "attempt 1 of 1")
    bar = f"document.querySelector('{JOB} [role=progressbar]')"
    assert page.run(f"{bar}.hidden")
    for step, percent in ((1, "25"), (2, "50")):
        (tmp_path / f"step-{step}").touch()
        page.until(f"{bar}.getAttribute('aria-valuenow') === '{percent}'")
        until_text(page, f"{percent} %")
    until_text(page, "loss 0.5 · note <b>plain</b>")
    (tmp_path / "end").touch()
    page.until(f"document.querySelector('{JOB}.succeeded')")
    press(page, "Show its result")
    page.until(f"document.querySelector('{JOB} .content')")
    assert json.loads(page.text(f"{JOB} .content")) == {"steps": 2, "user": 7}
    assert page.run(f"{button('Cancel the job')}.hidden")


def test_job_is_cancelled(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    press(page, "Cancel the job")
    until_text(page, "Cancelled: its process is dead.")
    page.until(f"document.querySelector('{JOB}.cancelled')")
    assert documents(url)[0]["state"] == "cancelled"


def test_failed_job_is_retried(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    (tmp_path / "error").touch()
    page.until(f"document.querySelector('{JOB}.failed')")
    until_text(page, "The data does not fit.")
    (tmp_path / "error").unlink()
    press(page, "Retry the job")
    page.until(f"document.querySelector('{JOB}.running')")
    until_text(page, "attempt 2")
    (tmp_path / "end").touch()
    page.until(f"document.querySelector('{JOB}.succeeded')")


def test_failed_job_is_dismissed(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    (tmp_path / "error").touch()
    page.until(f"document.querySelector('{JOB}.failed')")
    press(page, "Dismiss the job")
    until_text(page, "Dismissed: it is deleted at the end of its retention.")
    page.until(f"document.querySelector('{JOB}.cancelled')")
    assert documents(url)[0]["state"] == "cancelled"


def test_refused_cancel_shows_the_reason(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    page.run("""(() => {
        const sent = fetch;
        const refusal = () => new Response('{"detail": "The job has succeeded already."}', {status: 409});
        window.fetch = (url, options) => options?.method === 'DELETE' ? Promise.resolve(refusal()) : sent(url, options);
    })()""")
    press(page, "Cancel the job")
    until_text(page, "The job has succeeded already.")
    page.until(f"!{button('Cancel the job')}.disabled")


def test_connection_that_is_lost_is_opened_again(page: Page, url: str, tmp_path: Path) -> None:
    page.run("""(() => {
        const sent = fetch;
        let left = 2;
        const isStream = (options) => options?.headers?.some?.(([, value]) => value === 'text/event-stream');
        window.fetch = (url, options) =>
            isStream(options) && left-- > 0 ? Promise.reject(new TypeError('offline')) : sent(url, options);
    })()""")
    fill(page, "train", user="7", folder=str(tmp_path))
    send(page, "train")
    until_text(page, "No connection to the server. Trying again")
    (tmp_path / "step-1").touch()
    until_text(page, "25 %")


def test_state_of_a_known_job_is_followed(page: Page, url: str, tmp_path: Path) -> None:
    submit(page, tmp_path)
    job = documents(url)[0]["id"]
    fill(page, "train_status", user="7", job_id=job)
    send(page, "train_status")
    page.until("document.querySelector('#train_status .durable.running')")
    (tmp_path / "step-1").touch()
    page.until("document.querySelector('#train_status .durable').innerText.includes('25 %')")
    (tmp_path / "end").touch()
    page.until("document.querySelector('#train_status .durable.succeeded')")


def test_result_that_was_waited_for_is_shown_as_it_is(page: Page, tmp_path: Path) -> None:
    (tmp_path / "end").touch()
    fill(page, "train", user="7", folder=str(tmp_path), Prefer="wait=20")
    send(page, "train")
    page.until("document.querySelector('#train .content')")
    assert json.loads(page.text("#train .content")) == {"steps": 0, "user": 7}
    assert page.text("#train .status b") == "200 OK"
    assert not page.run(f"document.querySelector('{JOB}')")


def test_refused_submission_shows_no_job(page: Page, tmp_path: Path) -> None:
    authorize(page, "wrong")
    fill(page, "train", user="7", folder=str(tmp_path))
    send(page, "train")
    page.until("document.querySelector('#train .status b')")
    assert page.text("#train .status b").startswith("403")
    assert not page.run(f"document.querySelector('{JOB}')")


def test_facts_of_job_routes(page: Page) -> None:
    for name in ("train", "train_cancel", "cleanup"):
        page.run(f"document.getElementById('{name}').open = true")
    facts = page.text("#train .facts")
    assert "runs in a worker process of the pool “default” · one attempt · kept for 2 days" in facts
    assert "started at “0 3 * * *” (Europe/Berlin)" in page.text("#cleanup .facts")
    assert page.text("#train_cancel .facts") == "about a durable job; runs on the event loop"
    assert page.text("#train .kind") == "job"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")])
def test_job_is_readable_on_each_screen(page: Page, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "step-1").touch()
    page.look(width, 800, scheme)
    submit(page, tmp_path)
    until_text(page, "25 %")
    ratio, element = page.run(LEAST_CONTRAST)
    assert ratio >= 4.5, element
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    unnamed = f"[...document.querySelectorAll('{JOB} button')].filter((each) => !each.textContent.trim()).length"
    assert page.run(unnamed) == 0
