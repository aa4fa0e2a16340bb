"""chat, live and gallery: over HTTP and WebSocket, and in a real browser if one is installed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from browser import Page, chromium, needs_browser
from system import wait_until, workers_below
from tinysvc.core import request_context as current
from tinysvc.http import HANDLER
from tinysvc.testing import serving

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
import live  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the photos. The module is loaded again for it."""
    folder = tmp_path_factory.mktemp("photos")
    sys.modules.pop("gallery", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GALLERY_FOLDER", str(folder))
        yield folder
    sys.modules.pop("gallery", None)


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(str(EXAMPLES), cpu_workers=2) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


# Chat


def lines(socket: Any, count: int) -> list[str]:
    return [json.loads(socket.recv(timeout=20))["text"] for _ in range(count)]


def test_each_user_in_a_room_gets_each_line(url: str) -> None:
    rooms = url.replace("http", "ws") + "/chat/rooms/"
    with ExitStack() as stack:
        ada = stack.enter_context(connect(rooms + "a"))
        assert lines(ada, 1) == ["a user has joined"]
        bob = stack.enter_context(connect(rooms + "a"))
        other = stack.enter_context(connect(rooms + "b"))
        assert lines(ada, 1) == lines(bob, 1) == ["a user has joined"]
        ada.send('{"name": "Ada", "text": "hello <b>"}')
        for each in (ada, bob):
            assert json.loads(each.recv(timeout=20)) == {"name": "Ada", "text": "hello <b>"}
        bob.close()
        assert lines(ada, 1) == ["a user has left"]
        assert lines(other, 1) == ["a user has joined"]


@pytest.mark.parametrize(
    "message", ["x", "{}", '{"name": "", "text": "x"}', '{"name": "a", "text": "%s"}' % ("x" * 501)]
)
def test_invalid_line_closes_the_socket_with_the_reason(url: str, message: str) -> None:
    with connect(url.replace("http", "ws") + "/chat/rooms/c") as socket:
        socket.send(message)
        with pytest.raises(ConnectionClosed) as caught:
            lines(socket, 10)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1007


def test_slow_reader_misses_lines_and_is_informed(url: str) -> None:
    rooms = url.replace("http", "ws") + "/chat/rooms/slow"
    with connect(rooms, max_queue=1) as slow, connect(rooms) as fast:
        assert lines(fast, 1) == ["a user has joined"]
        line = json.dumps({"name": "f", "text": "x" * 500})
        for _ in range(10_000):
            fast.send(line)
            fast.recv(timeout=20)
        fast.send('{"name": "f", "text": "end"}')
        heard: list[str] = []
        while not heard or heard[-1] != "end":
            heard += lines(slow, 1)
        assert "you missed some lines" in heard


def test_room_name_is_escaped(client: httpx.Client) -> None:
    page = client.get("/chat", params={"room": '"><script>alert(1)</script>'}).text
    assert "<script>alert" not in page


def test_cookie_remembers_the_room(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        assert "<title>chat: lobby</title>" in client.get("/chat").text
        answer = client.get("/chat", params={"room": "\u00fcber & co"})
        assert answer.headers["cache-control"] == "no-store"
        assert "<title>chat: \u00fcber &amp; co</title>" in client.get("/chat").text


@pytest.mark.browser
@needs_browser
def test_chat_in_a_browser(url: str, browser: Page) -> None:
    connected = "document.querySelector('#state').innerText == 'connected'"
    ada = browser.tab(f"{url}/chat?room=tea")
    ada.until(f"{connected} && document.activeElement.id == 'text'")  # a tab in the background gets no focus
    bob = browser.tab(f"{url}/chat?room=tea")
    bob.until(connected)
    ada.type("hello <i>Bob</i>\n")
    bob.until("document.querySelector('#lines').innerText.includes('guest: hello <i>Bob</i>')")
    assert bob.run("document.querySelectorAll('#lines i').length") == 0
    bob.run("document.querySelector('#name').value = 'Bob'; document.querySelector('#text').focus()")
    bob.type("hello Ada\n")
    ada.until("document.querySelector('#lines').innerText.includes('Bob: hello Ada')")
    assert ada.run("document.querySelector('#text').value") == ""
    bob.close()
    ada.until("document.querySelector('#lines').innerText.includes('a user has left')")
    ada.close()


# Live


def test_primes_with_progress(client: httpx.Client) -> None:
    with client.stream("GET", "/live/primes?below=1000000") as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        data = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    *progress, result = data
    assert result == {"count": 78498}
    assert [each["done"] for each in progress] == sorted(each["done"] for each in progress)
    assert progress[-1] == {"done": 1.0, "count": 78498}
    assert len(progress) == 20


@pytest.mark.parametrize(("below", "count"), [(2, 0), (3, 1), (10, 4), (100, 25), (50_003, 5133)])
def test_primes(client: httpx.Client, below: int, count: int) -> None:
    assert client.get(f"/live/primes?below={below}").text.endswith(f'event: result\ndata: {{"count":{count}}}\n\n')


def test_sieves() -> None:
    assert live.sieve(30) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert live.sieve(2) == live.sieve(0) == []
    assert live.segment(90, 102, live.sieve(11)) == [97, 101]


def test_ticks_continue_after_the_last_event_id(client: httpx.Client) -> None:
    headers = {"last-event-id": "41", "origin": "https://elsewhere.example"}
    with client.stream("GET", "/live/ticks", headers=headers) as answer:
        assert answer.headers["access-control-allow-origin"] == "*"
        assert next(answer.iter_text()) == "id: 42\nretry: 1000\ndata: 42\n\n"


@pytest.mark.browser
@needs_browser
def test_live_in_a_browser(url: str, browser: Page) -> None:
    page = browser.tab(f"{url}/live")
    page.run("document.querySelector('#below').value = 200000; document.querySelector('button').click()")
    page.until("document.querySelector('#state').innerText == 'There are 17984 primes below 200000.'")
    assert page.run("document.querySelector('#bar').value") == 1
    workers = workers_below(os.getpid())
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)  # no computation ends before the page is closed
    page.run("document.querySelector('#below').value = 5000000; document.querySelector('button').click()")
    connections: Any = current.owner_by_task.values()
    wait_until(lambda: any(each.phase == HANDLER for each in connections), "the computation has begun")
    page.close()
    wait_until(lambda: workers_below(os.getpid()) != workers, "the computation of the closed page is killed")
    for worker in set(workers) & set(workers_below(os.getpid())):
        os.kill(worker, signal.SIGCONT)  # the idle worker serves the next tests


# Gallery


def photo(colour: str, size: tuple[int, int] = (800, 600), kind: str = "JPEG") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def test_uploaded_photos_are_shown(client: httpx.Client, folder: Path) -> None:
    files = [("photos", ("../../evil.jpg", photo("red"))), ("photos", ("b.png", photo("blue", kind="PNG")))]
    answer = client.post("/gallery/photos", files=files)
    assert answer.status_code == 201, answer.text
    jpeg, png = answer.json()
    assert jpeg.endswith(".jpg")
    assert png.endswith(".png")
    assert {jpeg, png} == {path.name for path in folder.iterdir()}
    answer = client.get("/gallery")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; style-src")
    page = answer.text
    for name in (jpeg, png):
        assert f'href="/gallery/originals/{name}"' in page
        first, again = (client.get(f"/gallery/thumbnails/{name}") for _ in range(2))
        assert max(Image.open(BytesIO(first.content)).size) == 240
        assert "age" not in first.headers
        assert again.headers["age"] == "0"
        assert again.content == first.content
    original = client.get(f"/gallery/originals/{jpeg}", headers={"range": "bytes=0-2"})
    assert (original.status_code, original.content) == (206, b"\xff\xd8\xff")
    assert original.headers["cache-control"] == "max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([("photos", ("a.jpg", b"no photo"))], 415),
        ([("photos", ("a.gif", photo("red", kind="GIF")))], 415),
        ([("photos", ("a.jpg", photo("red")[:300]))], 415),
        ([("other", ("a.jpg", photo("red")))], 422),
        ([("photos", ("a.png", photo("red", (10_000, 9_000), "PNG")))], 413),
    ],
    ids=["text", "gif", "cut", "other", "big"],
)
def test_invalid_photo_is_refused(client: httpx.Client, files: Any, status: int) -> None:
    assert client.post("/gallery/photos", files=files).status_code == status


@pytest.mark.parametrize("name", ["0" * 16 + ".jpg", "../gallery.py", "x.jpg", "..%2f..%2fetc%2fpasswd"])
def test_unknown_photo_is_refused(client: httpx.Client, name: str) -> None:
    assert client.get(f"/gallery/thumbnails/{name}").status_code in (404, 422)


@pytest.mark.browser
@needs_browser
def test_gallery_in_a_browser(url: str, browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "green.jpg"
    path.write_bytes(photo("green"))
    page = browser.tab(f"{url}/gallery")
    before = page.run("document.querySelectorAll('img').length")
    document = page.ask("DOM.getDocument")["root"]["nodeId"]
    chooser = page.ask("DOM.querySelector", nodeId=document, selector="input[type=file]")["nodeId"]
    page.ask("DOM.setFileInputFiles", nodeId=chooser, files=[str(path)])
    page.run("document.querySelector('button').click()")
    page.until(f"document.querySelectorAll('img').length == {before + 1}")
    assert page.run("location.pathname") == "/gallery"
    page.until("[...document.images].every(image => image.complete && image.naturalWidth == 240)")
