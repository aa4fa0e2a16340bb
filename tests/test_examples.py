"""The examples, each on a real server with real input."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy
import pytest
from PIL import Image, ImageCms

from commands import failed, served
from system import wait_until
from tinysvc import HTTPError, Request, Response, Service
from tinysvc.core.requests import Peer
from tinysvc.testing import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import blobs
import hello
import images
import members
import notes
import text
import users
import vectors

EXAMPLES = Path(hello.__file__).parent
NAMES = [
    "blobs",
    "chat",
    "gallery",
    "hello",
    "images",
    "inference",
    "live",
    "members",
    "notes",
    "office",
    "text",
    "training",
    "users",
    "vectors",
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(str(EXAMPLES), models=str(tmp_path_factory.mktemp("models"))) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=50) as client:
        yield client


# The folder


def test_root_redirects_to_the_docs_of_all_examples(client: httpx.Client) -> None:
    page = client.get("/", follow_redirects=True)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.url.path == "/docs"
    document = client.get("/openapi.json").json()
    assert {tag["name"] for tag in document["tags"]} == set(NAMES) - {"inference", "office"} | {
        "classifier",
        "filetypes",
        "orders",
        "pricing",
        "stock",
    }


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("blobs", "/" + 64 * "0"),
        ("hello", "/Ada"),
        ("images", "/thumbnail"),
        ("notes", "/"),
        ("text", "/"),
        ("users", "/wait/cpu"),
    ],
)
def test_each_example_runs_alone(name: str, path: str) -> None:
    with serving(str(EXAMPLES / f"{name}.py"), cpu_workers=1) as url:
        expected = {"blobs": 404, "images": 405}.get(name, 200)
        assert httpx.get(url + path).status_code == expected


def test_every_example_is_tested() -> None:
    packages = [path.parent.name for path in EXAMPLES.glob("*/__init__.py")]
    assert sorted(packages + [path.stem for path in EXAMPLES.glob("*.py")]) == NAMES


# hello


def test_hello_greets(client: httpx.Client) -> None:
    assert client.get("/hello/Ada").json() == {"message": "hello Ada!"}
    assert client.get("/hello/Ada", params={"punctuation": "?"}).json() == {"message": "hello Ada?"}


def test_hello_computes_primes(client: httpx.Client) -> None:
    assert client.get("/hello/primes/20").json() == [2, 3, 5, 7, 11, 13, 17, 19]
    assert client.get("/hello/primes/many").json()["errors"][0]["place"] == "path.below"


def test_handler_is_a_plain_function() -> None:
    assert hello.primes(12) == [2, 3, 5, 7, 11]


# text

CATS = "The cat sleeps on the warm mat. It purrs."
CATS_AGAIN = "On the warm mat the cat sleeps, and purrs."
TAXES = "Income taxes were raised again this year by parliament."


def test_text_finds_the_similar_pair(client: httpx.Client) -> None:
    body = f"{CATS}\r\n\r\n{TAXES}\n \n\n{CATS_AGAIN}\n"
    facts = client.post("/text", content=body.encode()).json()
    assert facts["words"] == 27
    assert facts["distinct"] == 18
    assert next(iter(facts["most_common"].items())) == ("the", 4)
    assert facts["paragraphs"] == 3
    assert facts["most_similar"][0]["first"] == CATS
    assert facts["most_similar"][0]["second"] == CATS_AGAIN
    assert facts["most_similar"][0]["similarity"] > 0.8


def test_text_reading_ease_puts_the_easy_text_above_the_hard_one() -> None:
    easy = text.facts(b"The cat sat. The dog ran. We had fun.")
    hard = text.facts(b"Institutional responsibilities necessitate considerable administrative accountability.")
    assert easy.reading_ease is not None
    assert hard.reading_ease is not None
    assert easy.reading_ease > 100 > 0 > hard.reading_ease


@pytest.mark.parametrize(
    ("body", "words", "paragraphs"),
    [
        (b"", 0, 0),
        (b"\n\n \n", 0, 0),
        (b"1 2 3 ... !?\n\n42", 0, 2),
        (b"just one paragraph", 3, 1),
        (b"\xef\xbb\xbfmarked", 1, 1),
        (b"caf\xe9 \xff\xfe\x00 ok", 2, 1),
        (bytes(range(256)) * 50, 100, 1),
        ("Grüße aus Köln, don\u2019t worry".encode(), 5, 1),
    ],
)
def test_text_takes_any_bytes(client: httpx.Client, body: bytes, words: int, paragraphs: int) -> None:
    facts = client.post("/text", content=body).json()
    assert (facts["words"], facts["paragraphs"]) == (words, paragraphs)
    assert (facts["reading_ease"] is None) == (words == 0)
    assert facts["most_similar"] == []


def test_text_of_many_paragraphs_compares_the_first_ones() -> None:
    body = "\n\n".join(f"paragraph number {'x' * (1 + n % 7)}" for n in range(text.COMPARED + 10))
    facts = text.facts(body.encode())
    assert facts.paragraphs == text.COMPARED + 10
    assert [pair.similarity for pair in facts.most_similar] == [1, 1, 1]


def test_text_shows_the_beginning_of_a_long_paragraph() -> None:
    assert text.beginning("short\nline") == "short line"
    assert text.beginning("word " * 1000) == ("word " * 12)[:59] + "…"


@pytest.mark.parametrize(
    ("word", "syllables"), [("cat", 1), ("made", 1), ("table", 2), ("banana", 3), ("the", 1), ("hmm", 1)]
)
def test_syllables(word: str, syllables: int) -> None:
    assert text.syllables_of(word) == syllables


def test_text_describes_its_usage(client: httpx.Client, url: str) -> None:
    usage = client.get("/text")
    assert usage.headers["content-type"] == "text/plain; charset=utf-8"
    assert usage.text == f"Send a text: curl --data-binary @FILE {url}/text\n"


# images


def picture(file_format: str, size: tuple[int, int] = (400, 200), mode: str = "RGB", **options: Any) -> bytes:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, "red")
    image.paste("blue", (size[0] // 2, 0, *size))
    file = BytesIO()
    image.convert(mode).save(file, file_format, **options)
    return file.getvalue()


def opened(response: httpx.Response) -> Image.Image:
    assert response.status_code == 200, response.text
    image = Image.open(BytesIO(response.content))
    image.load()
    return image


def is_red(pixel: Any) -> bool:
    return bool(pixel[0] > 200 and pixel[2] < 60)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_thumbnail_has_the_requested_size_and_format(client: httpx.Client, file_format: str) -> None:
    answer = client.post("/images/thumbnail", params={"size": 100}, content=picture(file_format))
    thumbnail = opened(answer)
    assert answer.headers["content-type"] == f"image/{file_format.lower()}"
    assert (thumbnail.format, thumbnail.size) == (file_format, (100, 50))
    assert is_red(thumbnail.getpixel((5, 25)))
    assert not is_red(thumbnail.getpixel((95, 25)))


def test_thumbnail_is_128_pixels_by_default_and_never_larger_than_the_image(client: httpx.Client) -> None:
    assert opened(client.post("/images/thumbnail", content=picture("PNG"))).size == (128, 64)
    assert opened(client.post("/images/thumbnail", content=picture("PNG", (20, 10)))).size == (20, 10)


def test_thumbnail_is_upright(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    for file_format in ("JPEG", "PNG"):
        thumbnail = opened(
            client.post("/images/thumbnail", params={"size": 100}, content=picture(file_format, exif=exif))
        )
        assert thumbnail.size == (50, 100)
        assert is_red(thumbnail.getpixel((25, 5)))
        assert 0x0112 not in thumbnail.getexif()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_blur_mixes_the_colours_where_they_meet(client: httpx.Client, file_format: str) -> None:
    answer = client.post("/images/blur", params={"radius": 10}, content=picture(file_format))
    blurred = opened(answer)
    assert answer.headers["content-type"] == f"image/{file_format.lower()}"
    assert (blurred.format, blurred.size) == (file_format, (400, 200))
    middle: Any = blurred.getpixel((200, 100))
    assert 80 < middle[0] < 180
    assert 80 < middle[2] < 180
    assert is_red(blurred.getpixel((20, 100)))


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "1"), ("PNG", "L"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "I;16")],
)
@pytest.mark.parametrize("route", ["thumbnail", "blur"])
def test_images_of_every_mode_are_accepted(client: httpx.Client, route: str, file_format: str, mode: str) -> None:
    assert opened(client.post(f"/images/{route}", content=picture(file_format, mode=mode))).format == file_format


def test_mpo_is_a_jpeg(client: httpx.Client) -> None:
    file = BytesIO()
    both = [Image.new("RGB", (40, 20), colour) for colour in ("red", "blue")]
    both[0].save(file, "MPO", save_all=True, append_images=both[1:])
    assert opened(client.post("/images/thumbnail", content=file.getvalue())).format == "JPEG"


def test_large_image_has_several_chunks() -> None:
    noise = Image.effect_noise((600, 600), 100)
    file = BytesIO()
    noise.save(file, "PNG")
    response = images.blur(file.getvalue(), radius=1)
    chunks = list(response.content)
    assert len(chunks) > 1
    assert Image.open(BytesIO(b"".join(chunks))).size == (600, 600)


@pytest.mark.parametrize("body", [b"", b"garbage", b"GIF89a" + bytes(100), b"<svg/>"])
def test_other_formats_are_415(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/images/thumbnail", content=body)
    assert answer.status_code == 415
    assert answer.json()["detail"] == "The body is neither a JPEG nor a PNG image."


@pytest.mark.parametrize(("file_format", "part"), [("JPEG", 0.05), ("JPEG", 0.5), ("PNG", 0.5), ("PNG", 0.9)])
@pytest.mark.parametrize("route", ["thumbnail", "blur"])
def test_broken_image_gets_400(client: httpx.Client, route: str, file_format: str, part: float) -> None:
    whole = picture(file_format)
    answer = client.post(f"/images/{route}", content=whole[: int(len(whole) * part)])
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("The image is broken: ")


def png_head(width: int, height: int) -> bytes:
    """The head of an image, for which a decoder would reserve the memory."""
    chunk = b"IHDR" + struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    parts = [struct.pack("!I", len(part) - 4) + part + struct.pack("!I", zlib.crc32(part)) for part in (chunk, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("width", "height"), [(10_000, 6_000), (10_000, 12_000), (50_000, 50_000)])
def test_too_many_pixels_are_413(client: httpx.Client, width: int, height: int) -> None:
    answer = client.post("/images/thumbnail", content=png_head(width, height))
    assert answer.status_code == 413
    assert "50,000,000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "place"),
    [("thumbnail?size=0", "query.size"), ("thumbnail?size=big", "query.size"), ("blur?radius=101", "query.radius")],
)
def test_size_out_of_range_is_422_with_its_place(client: httpx.Client, query: str, place: str) -> None:
    answer = client.post(f"/images/{query}", content=picture("PNG"))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["place"] == place


def fresh(name: str) -> Any:
    """The example, imported once more under another name."""
    spec = importlib.util.spec_from_file_location(f"fresh_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up there
        spec.loader.exec_module(module)
    return module


def test_images_without_pillow_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(HTTPError, match=r"503 Pillow cannot be imported .* pip install 'tinysvc\[examples\]'"):
        fresh("images").thumbnail(b"")


# blobs


@pytest.fixture
def blobs_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[httpx.Client]:
    monkeypatch.setenv("BLOBS", str(tmp_path / "new"))
    with serving(blobs) as url, httpx.Client(base_url=url) as client:
        yield client


def test_blob_is_stored_and_returned(blobs_client: httpx.Client, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    digest = hashlib.sha256(data).hexdigest()
    for _ in range(2):
        kept = blobs_client.post("/", content=iter([data[:7], data[7:]]))
        assert (kept.status_code, kept.json()) == (201, {"digest": digest, "size": len(data)})
    assert [path.name for path in (tmp_path / "new").iterdir()] == [digest]
    fetched = blobs_client.get(kept.headers["location"])
    assert fetched.content == data
    assert fetched.headers["content-length"] == str(len(data))
    assert fetched.headers["etag"] == f'"{digest}"'


def test_blob_name_must_be_a_digest(blobs_client: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "secret").touch()
    assert blobs_client.get(f"/{64 * 'f'}").status_code == 404
    for name in ("..%2fsecret", "x", 64 * "F", "unfinished-x"):
        assert blobs_client.get(f"/{name}").status_code in (404, 422), name


def test_incomplete_blob_is_not_kept(blobs_client: httpx.Client, tmp_path: Path) -> None:
    port = blobs_client.base_url.port
    assert port
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it")
        wait_until(lambda: any((tmp_path / "new").iterdir()), "it has begun")
    wait_until(lambda: not any((tmp_path / "new").iterdir()), "nothing is left")


# notes


@pytest.fixture
def notes_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.delenv("NOTES_DB", raising=False)
    with serving(notes) as url, httpx.Client(base_url=url) as client:
        yield client


def test_notes_full_cycle(client: httpx.Client) -> None:
    created = client.post("/notes", json={"title": "Milk", "text": "two litres"})
    place = created.headers["location"]
    assert created.status_code == 201
    assert place == f"/notes/{created.json()['id']}"
    assert client.get(place).json() == created.json()
    replaced = client.put(place, json={"title": "Oat milk"})
    assert replaced.json() == {"id": created.json()["id"], "title": "Oat milk", "text": ""}
    assert client.get(place).json() == replaced.json()
    assert replaced.json() in client.get("/notes").json()
    deleted = client.delete(place)
    assert (deleted.status_code, deleted.content) == (204, b"")
    for answer in (client.get(place), client.delete(place), client.put(place, json={"title": "Late"})):
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is no note {created.json()['id']}."


def test_note_supports_conditional_requests(notes_client: httpx.Client) -> None:
    location = notes_client.post("/", json={"title": "<Milk>"}).headers["location"]
    first = notes_client.get(location)
    tag = first.headers["etag"]
    assert notes_client.get(location, headers={"if-none-match": tag}).status_code == 304
    page = notes_client.get(location, headers={"accept": "text/html"})
    assert "<h1>&lt;Milk&gt;</h1>" in page.text
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for status in (200, 412):  # the second write is based on a stale copy
        answer = notes_client.put(location, json={"title": "Tea"}, headers={"if-match": tag})
        assert answer.status_code == status
    assert notes_client.get(location).headers["etag"] != tag


def test_notes_are_listed_newest_first_searched_and_limited(notes_client: httpx.Client) -> None:
    for title, content in [("Milk", "buy"), ("Bread", "with 100% rye"), ("Oat milk", "not yet"), ("Rye", "")]:
        location = notes_client.post("/", json={"title": title, "text": content}).headers["location"]
    assert location == "/4"

    def titles(**query: Any) -> list[str]:
        return [note["title"] for note in notes_client.get("/", params=query).json()]

    assert titles() == ["Rye", "Oat milk", "Bread", "Milk"]
    assert titles(search="MILK") == ["Oat milk", "Milk"]
    assert titles(search="rye", limit=1) == ["Rye"]
    assert titles(search="0%") == ["Bread"]
    assert titles(search="'; DROP TABLE notes; --") == []
    assert titles(limit=2) == ["Rye", "Oat milk"]


@pytest.mark.parametrize(
    ("method", "path", "json", "place"),
    [
        ("POST", "/", {"text": "no title"}, "$"),
        ("POST", "/", {"title": ""}, "$.title"),
        ("POST", "/", {"title": "Milk", "text": 7}, "$.text"),
        ("PUT", "/1", {"title": 7}, "$.title"),
        ("GET", "/?limit=0", None, "query.limit"),
        ("GET", "/?limit=many", None, "query.limit"),
        ("GET", "/first", None, "path.note_id"),
        ("GET", "/0", None, "path.note_id"),
        ("DELETE", f"/{2**64}", None, "path.note_id"),
    ],
)
def test_bad_note_gets_422_with_the_place(
    notes_client: httpx.Client, method: str, path: str, json: Any, place: str
) -> None:
    answer = notes_client.request(method, path, json=json)
    assert answer.status_code == 422
    assert [error["place"] for error in answer.json()["errors"]] == [place]


def test_notes_are_in_the_named_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTES_DB", str(tmp_path / "notes.db"))
    with serving(notes) as url:
        httpx.post(url, json={"title": "Kept"})
    with serving(notes) as url:
        assert httpx.get(url + "/1").json()["title"] == "Kept"


def test_notes_of_many_threads_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTES_DB", raising=False)

    def write(database: notes.Database) -> None:
        for number in range(25):
            request = Request("POST", "/")
            request.served_by = Service(notes)
            notes.create(request, notes.Draft(f"note {number}"), database)

    with contextmanager(notes.database)() as database:
        writers = [threading.Thread(target=write, args=[database]) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        found = notes.newest(database, limit=1000)
    assert sorted(note.id for note in found) == list(range(1, 201))


# users

SERIES = [(work, way) for work in ("wait", "compute") for way in ("blocking", "io", "cpu")]


@pytest.fixture(scope="module")
def measurement(client: httpx.Client) -> Any:
    answer = client.get("/users/measure", params={"k": 4})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_measure_gives_the_latency_of_each_user(measurement: Any) -> None:
    assert (measurement["k"], measurement["workers"]) == (4, 2)
    for work, way in SERIES:
        latencies = measurement[work][way]
        assert len(latencies) == 4
        assert latencies == sorted(latencies)
        assert latencies[0] >= 49  # none can be faster than the work itself


@pytest.mark.parametrize(("work", "way"), SERIES)
def test_each_way_responds(client: httpx.Client, work: str, way: str) -> None:
    assert client.get(f"/users/{work}/{way}").text == {"wait": "waited\n", "compute": "computed\n"}[work]


@pytest.mark.parametrize("k", ["0", "201", "many"])
def test_measure_refuses_too_many_users(client: httpx.Client, k: str) -> None:
    answer = client.get("/users/measure", params={"k": k})
    assert (answer.status_code, answer.json()["errors"][0]["place"]) == (422, "query.k")


def test_measure_works_alone_and_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "users.sock")
    with (
        serving(users, unix=path, cpu_workers=1),
        httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=50) as client,
    ):
        measured = client.get("http://tinysvc/measure", params={"k": 2}).json()
    assert (measured["k"], measured["workers"]) == (2, 1)


def test_measure_trusts_the_socket_and_not_the_host_header(client: httpx.Client) -> None:
    answer = client.get("/users/measure", params={"k": 1}, headers={"host": "elsewhere.example:1"})
    assert answer.json()["k"] == 1


def test_measure_shows_a_browser_a_page(client: httpx.Client) -> None:
    page = client.get("/users/measure", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "accept"
    assert 'ask("chart"' in page.text
    assert "://" not in page.text  # it loads nothing from elsewhere


def at(host: str, port: int | None) -> Peer:
    return Peer(None, (host, port), "http")


def test_second_measurement_is_refused() -> None:
    with users.alone(), pytest.raises(HTTPError, match="503 Another measurement is running"):
        users.measure(Request("GET", "/measure", peer=at("127.0.0.1", 1)))


def test_failed_measurement_is_503(unused_port: int) -> None:
    with pytest.raises(HTTPError, match="503 The measurement failed: ConnectionRefusedError"):
        users.measure(Request("GET", "/measure", peer=at("127.0.0.1", unused_port)), k=1)


def test_refused_user_fails_the_measurement(url: str) -> None:
    address = httpx.URL(url)
    with pytest.raises(HTTPError, match=r"503 The measurement failed: .*404 Not Found"):
        users.measure(Request("GET", "/nowhere/measure", peer=at(address.host, address.port)), k=1)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is bound, so it stays free, but does not listen, so it refuses connections."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_chart_draws_the_measurement(client: httpx.Client, measurement: Any) -> None:
    svg = client.post("/users/chart", json=measurement)
    assert (svg.status_code, svg.headers["content-type"]) == (200, "image/svg+xml")
    assert b"<svg" in svg.content[:1000]
    png = client.post("/users/chart", params={"format": "png"}, json=measurement)
    assert png.headers["content-type"] == "image/png"
    assert opened(png).width > 1000


def ways(*latencies: float) -> users.Ways:
    return users.Ways(list(latencies), list(latencies), list(latencies))


@pytest.mark.parametrize("latencies", [[0.0], [0.0, 0.0], [3_600_000.0], [0.1] * 200])
def test_chart_draws_odd_measurements(latencies: list[float]) -> None:
    odd = users.Measurement(len(latencies), 1, ways(*latencies), ways(*latencies))
    assert b"</svg>" in users.chart(odd).content


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"k": 0}, "$.k"),
        ({"wait": {"blocking": [], "io": [1], "cpu": [1]}}, "$.wait.blocking"),
        ({"compute": {"blocking": [1], "io": [-1], "cpu": [1]}}, "$.compute.io[0]"),
        ({"compute": {"blocking": [1], "io": [1e300], "cpu": [1]}}, "$.compute.io[0]"),
    ],
)
def test_chart_refuses_impossible_measurements(
    client: httpx.Client, measurement: Any, change: dict[str, Any], place: str
) -> None:
    answer = client.post("/users/chart", json={**measurement, **change})
    assert (answer.status_code, answer.json()["errors"][0]["place"]) == (422, place)


def test_chart_without_matplotlib_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(HTTPError, match=r"503 matplotlib cannot be imported .* pip install 'tinysvc\[examples\]'"):
        users.chart(users.Measurement(1, 1, ways(50), ways(50)))


def test_measure_can_be_called_as_a_plain_function(url: str) -> None:
    address = httpx.URL(url)
    measured = users.measure(Request("GET", "/users/measure", peer=at(address.host, address.port)), k=1)
    assert isinstance(measured, users.Measurement)
    assert isinstance(users.measure(Request("GET", "/users/measure"), accept="text/html"), Response)


# Vectors


def test_vectors_finds_the_nearest(client: httpx.Client) -> None:
    values = numpy.random.default_rng(seed=1).normal(size=(vectors.COUNT, vectors.DIMENSIONS))[7]
    found = client.post("/vectors", json={"values": values.tolist()}).json()
    assert found["index"] == 7
    assert found["distance"] == pytest.approx(0, abs=0.01)


def test_simultaneous_vectors_each_get_their_own_result(client: httpx.Client) -> None:
    table = numpy.random.default_rng(seed=1).normal(size=(vectors.COUNT, vectors.DIMENSIONS))
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda i: client.post("/vectors", json={"values": table[i].tolist()}).json(), range(64))
        assert [answer["index"] for answer in answers] == list(range(64))


def test_vectors_of_another_size_are_422(client: httpx.Client) -> None:
    answer = client.post("/vectors", json={"values": [1, 2]})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"place": "$.values", "detail": "Expected `array` of length >= 8"}]


def test_vectors_trains_in_its_own_pool(client: httpx.Client) -> None:
    with client.stream("POST", "/vectors/clusters", params={"count": 3}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = "".join(answer.iter_text()).strip().split("\n\n")
    kinds = [event.partition("\n")[0] for event in events]
    assert kinds == ["event: round"] * (len(events) - 1) + ["event: result"]
    spreads = [json.loads(event.partition("data: ")[2])["spread"] for event in events[:-1]]
    assert spreads == sorted(spreads, reverse=True)
    assert client.get("/readyz").json()["pools"]["training"]["workers"] == 1


def test_vectors_handlers_are_plain_functions() -> None:
    queries = [vectors.Query([0.0] * 8), vectors.Query([1.0] + [0.0] * 7)]
    table = numpy.eye(8, dtype="f4")
    assert [found.index for found in vectors.nearest(queries, table)][1] == 0
    with pytest.raises(HTTPError, match="501"):
        vectors.nearest(queries, None)


# Members


def test_member_signs_in(client: httpx.Client) -> None:
    answer = client.post("/members/tokens", json={"name": "ada", "password": "lovelace"})
    token = answer.json()["token"]
    assert client.get("/members/me", headers={"authorization": f"Bearer {token}"}).json() == {"name": "ada"}
    forged = token.replace("ada", "grace")
    for wrong in (forged, token[:-1], "a", "ada.1.x", "ada.nan."):
        refused = client.get("/members/me", headers={"authorization": f"Bearer {wrong}"})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("name", ["ada", "nobody"])
def test_wrong_password_is_401(client: httpx.Client, name: str) -> None:
    answer = client.post("/members/tokens", json={"name": name, "password": "guess"})
    assert (answer.status_code, answer.json()["detail"]) == (401, "The name or the password is wrong.")


def test_token_expires() -> None:
    old = members.signed("ada", "1", b"secret")
    service = Service(members).override(secret=b"secret")
    with serving(service, cpu_workers=1) as url:
        for token, status in ((old, 401), (members.signed("ada", "1e12", b"secret"), 200)):
            assert httpx.get(f"{url}/me", headers={"authorization": f"Bearer {token}"}).status_code == status


def test_missing_libraries_leave_out_only_their_examples(tmp_path: Path) -> None:
    """As after a bare `pip install tinysvc`."""
    for name in ("multipart", "websockets", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name}')\n")
    with served("-m", "tinysvc", str(EXAMPLES), "--port", "0", cwd=tmp_path, PYTHONPATH=str(tmp_path)) as server:
        assert server.get("/hello/world").status_code == 200
        assert server.get("/gallery").status_code == 404
        refused = httpx.post(f"{server.url}/inference/classifier", json={"rows": [[1.0]]}, timeout=20)
        assert (refused.status_code, refused.json()["detail"][:17]) == (501, "This needs numpy:")
        server.process.terminate()
        _, errors = server.process.communicate(timeout=20)
    left_out = [line for line in errors.splitlines() if "is not served" in line]
    assert len(left_out) == 2
    assert left_out[0].startswith("chat.py is not served: ")
    assert left_out[0].endswith("pip install 'tinysvc[websocket]'")
    assert left_out[1].endswith("pip install 'tinysvc[forms]'")
    status, errors = failed(
        "-m", "tinysvc", str(EXAMPLES), "--strict", "--port", "0", cwd=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert status == 3
    assert errors.startswith("tinysvc: ")
    assert "pip install 'tinysvc[websocket]'" in errors


def ramp_of_16_bits() -> bytes:
    file = BytesIO()
    Image.fromarray(numpy.arange(65536, dtype=numpy.uint16).reshape(256, 256)).save(file, "PNG")
    return file.getvalue()


def with_profile(mode: str) -> tuple[bytes, bytes]:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = BytesIO()
    Image.new(mode, (30, 20)).save(file, "JPEG", icc_profile=profile)
    return file.getvalue(), profile


@pytest.mark.parametrize("route", ["thumbnail", "blur"])
def test_ramp_of_16_bits_stays_a_ramp(client: httpx.Client, route: str) -> None:
    image = opened(client.post(f"/images/{route}", content=ramp_of_16_bits()))
    assert 120 < numpy.asarray(image.convert("L")).mean() < 135


@pytest.mark.parametrize("route", ["thumbnail", "blur"])
def test_colour_profile_is_kept_if_it_fits(client: httpx.Client, route: str) -> None:
    for mode, is_kept in (("RGB", True), ("CMYK", False), ("L", False)):
        content, profile = with_profile(mode)
        answer = opened(client.post(f"/images/{route}", content=content))
        assert answer.info.get("icc_profile") == (profile if is_kept else None)
