"""docs_page/: the page in a real browser, on a wide and a narrow screen, with mouse and keyboard."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import docs_page_app
from browser import Page, chromium, needs_browser
from contrast import LEAST_CONTRAST
from tinysvc import Service
from tinysvc.testing import serving

pytestmark = [pytest.mark.browser, needs_browser]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    service = Service(*docs_page_app.parts, name="shop", description="Sells `things`.")
    with serving(service, cpu_workers=1) as url:
        yield url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str) -> Iterator[Page]:
    page = browser.tab(f"{url}/docs")
    page.look()
    page.until("document.querySelector('.route')")
    yield page
    assert page.problems(url) == []
    page.close()


@pytest.fixture(scope="module")
def odd_url() -> Iterator[str]:
    service = Service(*docs_page_app.odd_parts, name="odd", description="https://example.org/" + "long" * 99)
    with serving(Service(service, Service(*docs_page_app.parts, name="shop", prefix="/shop"), name="both")) as url:
        yield url


@pytest.fixture
def odd(browser: Page, odd_url: str) -> Iterator[Page]:
    page = browser.tab(f"{odd_url}/docs")
    page.until("document.querySelector('.route')")
    yield page
    assert page.problems(odd_url) == []
    page.close()


def opened(page: Page, name: str) -> str:
    """Open a route. The selector of its form is returned."""
    page.run(f"document.getElementById('{name}').open = true")
    page.until(f"document.querySelector('#{name} form')")
    return f"#{name} form"


def fill(page: Page, name: str, label: str, value: str) -> None:
    """Type a value into the input with this label."""
    page.run(f"""(() => {{
        const label = [...document.querySelectorAll('#{name} label')].find(
            (each) => each.firstChild.textContent === {json.dumps(label)});
        const input = document.getElementById(label.htmlFor);
        input.value = {json.dumps(value)};
        input.dispatchEvent(new Event('input', {{bubbles: true}}));
    }})()""")


def send(page: Page, name: str) -> str:
    """Send the form of a route. The status of the response is returned."""
    page.run(f"document.querySelector('#{name} form').requestSubmit()")
    page.until(f"document.querySelector('#{name} .status b')")
    return page.text(f"#{name} .status b")


def content_of(page: Page, name: str) -> Any:
    page.until(f"document.querySelector('#{name} .content')?.textContent")
    return json.loads(page.text(f"#{name} .content"))


def curl(page: Page, name: str) -> str:
    return page.text(f"#{name} .curl code")


def by_curl(page: Page, name: str, folder: Path) -> str:
    """The output of the curl command, run by a shell."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    line = curl(page, name).replace("curl ", "curl -sS --max-time 20 ", 1)
    return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=True).stdout


# The list of routes


def test_all_routes_are_listed_with_their_kind(page: Page) -> None:
    assert page.text("h1") == "shop"
    assert page.run("document.querySelector('#page-about code').textContent") == "things"
    assert page.run("document.querySelectorAll('.route').length") == 12
    assert page.run("[...document.querySelectorAll('.cpu .kind')].map(each => each.textContent)") == ["cpu"]
    assert page.run("document.querySelectorAll('.io .kind').length") == 11
    assert page.text("#square summary .path") == "/square/{x}"
    assert page.text("#find .summary") == "Find an item. It is found:"


def test_texts_of_the_document_are_never_html(page: Page) -> None:
    assert page.text("#odd .summary") == "deprecated <script>document.title='broken'</script> \"it's\" & <b>bold</b>"
    assert page.run("getComputedStyle(document.querySelector('#odd .path')).textDecorationLine") == "line-through"
    assert page.run("document.title") == "shop"
    opened(page, "odd")
    assert send(page, "odd") == "200 OK"
    page.until("document.querySelector('#odd .content').textContent == '<b>odd</b>'")


def test_route_shows_its_options_and_responses(page: Page) -> None:
    opened(page, "square")
    facts = page.text("#square .facts")
    assert facts == "runs in a worker process of the pool “default” · stopped after 10 s · at most 4 requests at once"
    assert page.text("#square .more summary") == "Responses: 200, 400, 422, 503, 504"
    opened(page, "order")
    assert "Item {" in page.text("#order .outline")
    assert "kind: gift | own" in page.text("#order .outline")
    assert "note?: text or null" in page.text("#order .outline")
    opened(page, "find")
    assert page.run("document.querySelectorAll('#find .opened li').length") == 2


def test_filter_shows_matching_routes(page: Page) -> None:
    page.type("/")
    assert page.run("document.activeElement.id") == "page-filter"
    page.type("POST files")
    shown = "[...document.querySelectorAll('.route:not([hidden])')].map(each => each.id)"
    assert page.run(shown) == ["upload"]
    assert page.text("#page-found") == "1 of 12 routes"
    page.type("\x1b")
    assert len(page.run(shown)) == 12


def test_link_opens_its_route(browser: Page, url: str) -> None:
    page = browser.tab(f"{url}/docs#square")
    page.until("document.querySelector('#square form')")
    assert page.run("document.activeElement.closest('.route').id") == "square"
    page.close()


def test_routes_are_grouped_by_service_and_tag(odd: Page) -> None:
    headings = (
        "[...document.querySelectorAll('h2:not(dialog *), h3')].map(each => each.localName + ' ' + each.textContent)"
    )
    assert odd.run(headings) == ["h2 odd", "h3 about", "h3 stock", "h2 shop"]
    assert odd.run("[...document.querySelectorAll('nav a')].map(each => each.textContent)") == [
        "odd",
        "about",
        "stock",
        "shop",
    ]
    assert odd.run("document.getElementById('items').closest('section').firstChild.textContent") == "stock"
    odd.run("document.querySelector('nav .h3 a').click()")
    assert odd.run("document.querySelector(':target').textContent") == "about"


def test_markdown_emphasis_is_shown(odd: Page) -> None:
    html = "Some of <em>them</em>, <strong>as you like</strong>: *args and **kwargs, <code>a*b</code>."
    assert odd.run("document.querySelector('#about .summary').innerHTML") == html


# Requests


def test_errors_are_shown_at_their_inputs(page: Page) -> None:
    opened(page, "find")
    fill(page, "find", "number", "one")
    assert send(page, "find").startswith("422 ")
    page.until("document.querySelector('#find .error')")
    assert page.text("#find .error") == "Expected int, got 'one'"
    assert page.run("document.querySelector('#find [aria-invalid=true]').dataset.place") == "path.number"
    opened(page, "order")
    fill(page, "order", "Body", '{"number": "one"}')
    assert send(page, "order").startswith("422 ")
    page.until("document.querySelector('#order textarea[aria-invalid=true]')")
    assert page.text("#order .error").splitlines() == [
        "$.number: Expected int, got str",
        "Object missing required field items",
        "Object missing required field kind",
    ]
    fill(page, "find", "number", "1")
    send(page, "find")
    page.until("document.querySelector('#find .content')?.textContent.includes('\"number\": 1')")
    assert not page.run("document.querySelector('#find .error, #find [aria-invalid=true]')")


def test_list_header_and_head_request(odd: Page, tmp_path: Path) -> None:
    opened(odd, "version")
    fill(odd, "version", "x-ids", "a b\nc")
    assert send(odd, "version") == "200 OK"
    assert "x-got: a b, c" in odd.run("document.querySelector('#version .more pre').textContent")
    assert "x-got: a b c" in by_curl(odd, "version", tmp_path)


def test_get_body_is_in_the_curl_command_only(odd: Page, tmp_path: Path) -> None:
    opened(odd, "about")
    fill(odd, "about", "Body", "[[1],\n[2]]")
    fill(odd, "about", "limit", "1")
    assert send(odd, "about").startswith("422 ")
    assert by_curl(odd, "about", tmp_path) == "[[1]]"


def test_optional_values_may_be_empty(odd: Page, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("four")
    opened(odd, "maybe")
    assert send(odd, "maybe") == "200 OK"
    assert content_of(odd, "maybe") == {"ids": None, "way": None, "photo": None}
    fill(odd, "maybe", "ids", "1\n2")
    fill(odd, "maybe", "way", "up")
    odd.choose_files("#maybe input[type=file]", tmp_path / "a")
    send(odd, "maybe")
    odd.until("document.querySelector('#maybe .content')?.textContent.includes('\"photo\": 4')")
    expected = {"ids": [1, 2], "way": "up", "photo": 4}
    assert content_of(odd, "maybe") == json.loads(by_curl(odd, "maybe", tmp_path)) == expected


def test_lines_of_a_stream_are_described(odd: Page) -> None:
    opened(odd, "items")
    odd.run("document.querySelector('#items .opened > .more').open = true")
    assert odd.text("#items .more td pre").startswith("lines of Item {")


def test_json_body_starts_with_a_valid_sample(page: Page, tmp_path: Path) -> None:
    opened(page, "order")
    sample = {"number": 1, "items": [{"name": "text", "count": 1, "parts": []}], "kind": "gift", "note": "text"}
    assert json.loads(page.run("document.querySelector('#order textarea').value")) == sample
    assert send(page, "order") == "200 OK"
    assert content_of(page, "order") == sample
    assert json.loads(by_curl(page, "order", tmp_path)) == sample


def test_problem_response_is_shown(page: Page) -> None:
    opened(page, "order")
    fill(page, "order", "Body", '{"number": "one"}')
    assert send(page, "order").startswith("422 ")
    assert content_of(page, "order")["errors"]


def test_parameters_are_sent_and_in_the_curl_command(page: Page, tmp_path: Path) -> None:
    opened(page, "find")
    fill(page, "find", "number", "7")
    fill(page, "find", "words", "a b\nit's & so")
    fill(page, "find", "order", "down")
    fill(page, "find", "x-tenant", '$HOME "x" \'')
    expected = {"number": 7, "words": ["a b", "it's & so"], "order": "down", "tenant": '$HOME "x" \''}
    assert send(page, "find") == "200 OK"
    assert content_of(page, "find") == expected
    assert json.loads(by_curl(page, "find", tmp_path)) == expected
    fill(page, "find", "session", "abc")
    assert curl(page, "find").endswith(" -b session=abc")


def test_path_parameter_keeps_its_slashes(page: Page) -> None:
    opened(page, "path")
    fill(page, "path", "path", "a/b c/ü")
    assert send(page, "path") == "200 OK"
    page.until("document.querySelector('#path .content').textContent == 'a/b c/ü'")
    assert curl(page, "path").endswith("/files/a/b%20c/%C3%BC")


def test_server_timing_is_drawn(page: Page) -> None:
    opened(page, "square")
    fill(page, "square", "x", "12")
    assert send(page, "square") == "200 OK"
    assert content_of(page, "square") == 144
    assert page.run("[...document.querySelectorAll('#square .timing dt')].map(e => e.textContent)") == ["queue", "run"]
    assert page.run("document.querySelector('#square .bar').style.width").endswith("%")


def test_files_are_uploaded(page: Page, tmp_path: Path) -> None:
    for name in ("a.txt", "b c.txt", "it's;d,é.txt"):
        (tmp_path / name).write_text(name)
    opened(page, "upload")
    page.choose_files("#upload input[type=file]", *sorted(tmp_path.iterdir()))
    fill(page, "upload", "title", "new")
    assert send(page, "upload") == "200 OK"
    assert content_of(page, "upload") == {"new a.txt": 5, "new b c.txt": 7, "new it's;d,é.txt": 13}
    assert json.loads(by_curl(page, "upload", tmp_path)) == {"new a.txt": 5, "new b c.txt": 7, "new it's;d,é.txt": 13}


@pytest.mark.parametrize("media", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_forms_are_sent_in_both_content_types(page: Page, tmp_path: Path, media: str) -> None:
    opened(page, "names")
    fill(page, "names", "content type", media)
    number = page.run("document.querySelector('#names select').selectedIndex")
    page.run(f"""(() => {{
        const shown = [...document.querySelectorAll('#names form > div > div:not(.field)')][{number}];
        shown.querySelector('input').value = 'Ada & co';
        shown.querySelector('input').dispatchEvent(new Event('input', {{bubbles: true}}));
    }})()""")
    assert send(page, "names") == "200 OK"
    page.until("document.querySelector('#names .content').textContent == 'Ada & co is 3'")
    assert by_curl(page, "names", tmp_path) == "Ada & co is 3"


def test_raw_body_is_text_or_a_file(page: Page, tmp_path: Path) -> None:
    (tmp_path / "some").write_bytes(b"\xff\x00")
    opened(page, "raw")
    fill(page, "raw", "Body", "some text")
    assert send(page, "raw") == "200 OK"
    assert by_curl(page, "raw", tmp_path) == "some text"
    page.choose_files("#raw input[type=file]", tmp_path / "some")
    assert send(page, "raw") == "200 OK"
    page.until("document.querySelector('#raw [download]')")
    assert page.text("#raw .status").endswith("2 B")


def test_stream_is_shown_while_it_arrives_and_stopped(page: Page) -> None:
    opened(page, "lines")
    assert send(page, "lines") == "200 OK"
    page.until("document.querySelectorAll('#lines li').length > 3")
    assert page.text("#lines .lines li:nth-child(2) span") == '{"number":1}'
    page.run("document.querySelectorAll('#lines .actions button')[1].click()")
    page.until("document.querySelector('#lines .status').textContent.endsWith('Stopped.')")
    assert page.run("document.querySelectorAll('#lines .actions button')[1].disabled")
    assert "-N" in curl(page, "lines")


def test_events_are_shown(page: Page) -> None:
    opened(page, "events")
    assert send(page, "events") == "200 OK"
    page.until("document.querySelectorAll('#events li').length == 3")
    assert page.text("#events .lines li:nth-child(3) span") == "event: tick\ndata: number 2"


def test_image_is_shown(page: Page) -> None:
    opened(page, "picture")
    assert send(page, "picture") == "200 OK"
    page.until("document.querySelector('#picture img')?.naturalWidth == 40")


def test_authorize_dialog_sends_the_token(page: Page) -> None:
    opened(page, "me")
    assert send(page, "me").startswith("401 ")
    page.run("document.getElementById('page-authorize').click()")
    page.type("secret")
    page.run("document.querySelector('dialog button').click()")
    assert send(page, "me") == "200 OK"
    page.until("document.querySelector('#me .content').textContent == 'SECRET'")
    assert "'authorization: Bearer secret'" in curl(page, "me")


def test_missing_response_is_reported(page: Page) -> None:
    opened(page, "square")
    page.ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    page.run("document.querySelector('#square form').requestSubmit()")
    page.until("document.querySelector('#square .status').textContent.startsWith('No response: ')")


# Accessibility


def test_page_works_with_the_keyboard_only(page: Page) -> None:
    page.type("/square\t")
    page.until("document.activeElement.matches('#page-authorize')")
    for _ in range(20):
        page.type("\t")
        if page.run("document.activeElement.closest('#square') !== null"):
            break
    page.type("\n")
    page.until("document.querySelector('#square form')")
    page.type("\t")
    page.run("document.activeElement.select()")
    page.type("9\n")
    page.until("document.querySelector('#square .content')?.textContent == '81'")
    page.type("\t")
    assert page.run("document.activeElement.textContent") == "Send"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_contrast_and_width_on_every_screen(page: Page, scheme: str, width: int) -> None:
    """The contrast of every text is at least 4.5 (WCAG 2.2, 1.4.3), and the page has no horizontal scroll bar."""
    page.look(width, 740, scheme)
    for name in ("find", "order", "square", "upload", "events", "me"):
        opened(page, name)
        send(page, name)
        page.run(f"document.querySelectorAll('#{name} .more').forEach(each => each.open = true)")
    ratio, where = page.run(LEAST_CONTRAST)
    assert ratio >= 4.5, where
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.documentElement.clientWidth") > width - 30
    light = page.run("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 248)"
    assert light == (scheme == "light")


def test_long_word_is_broken(odd: Page) -> None:
    odd.look(360, 740)
    assert odd.run("document.documentElement.scrollWidth") <= 360


def test_every_input_has_a_label(page: Page) -> None:
    for name in page.run("[...document.querySelectorAll('.route')].map(each => each.id)"):
        opened(page, name)
    unlabelled = "[...document.querySelectorAll('input, select, textarea')].filter(each => !each.labels.length)"
    assert page.run(f"{unlabelled}.map(each => each.outerHTML)") == []
