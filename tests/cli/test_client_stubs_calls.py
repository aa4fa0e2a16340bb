"""The modules that `--client` prints call the service that they are made from: each example, and hard cases."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import uuid
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from PIL import Image

import client_app
from client_modules import EXAMPLES, ROOT, imported, printed
from example_models import ROW, store_with_models
from tinysvc import CallFailed, CallUnavailable, Event, HTTPError, UploadFile
from tinysvc.testing import serving

# Calls of the examples


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = store_with_models(tmp_path_factory.mktemp("models"))
    with serving(str(ROOT / "examples"), cpu_workers=2, models=models) as url:
        yield url


@pytest.fixture(scope="module")
def examples(url: str, tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("client")
    return imported(printed(url, folder), folder, "examples_client")


def png() -> bytes:
    content = BytesIO()
    Image.new("RGB", (30, 20), "red").save(content, "PNG")
    return content.getvalue()


async def blobs(client: Any) -> None:
    kept = await client.keep(body=b"some bytes")
    assert kept == client.Kept(digest=kept.digest, size=10)
    assert await client.fetch(digest=kept.digest) == b"some bytes"
    with pytest.raises(HTTPError, match=r"There is no such file\.") as caught:
        await client.fetch(digest=64 * "0")
    assert caught.value.status == 404


async def chat(client: Any) -> None:
    assert b"tea" in await client.chat_page(room="tea")
    assert b"cup" in await client.chat_page(room_cookie="cup")


JPEG = b"\xff\xd8\xff"


async def gallery(client: Any) -> None:
    (name,) = await client.upload(photos=[png()])
    assert (await client.gallery_thumbnail(name=name)).startswith(JPEG)
    assert await client.file(path=name) == png()


async def hello(client: Any) -> None:
    assert await client.hello(name="Ada/?&", punctuation="?") == {"message": "hello Ada/?&?"}
    assert await client.hello_primes(below=12) == [2, 3, 5, 7, 11]
    with pytest.raises(HTTPError) as caught:
        await client.hello_primes(below="many")
    assert (caught.value.status, caught.value.problem()["errors"][0]["place"]) == (422, "path.below")


async def images(client: Any) -> None:
    assert (await client.images_thumbnail(size=8, body=png())).startswith(b"\x89PNG")
    with pytest.raises(HTTPError, match="neither a JPEG nor a PNG"):
        await client.blur(body=b"text")


async def inference(client: Any) -> None:
    (found,) = await client.classify(body=client.Rows(rows=[ROW]))
    assert found.label in ("blue", "green", "red")
    assert 1 / 3 <= found.probability <= 1
    with pytest.raises(HTTPError, match="the network takes 2"):
        await client.classify(body=client.Rows(rows=[[1.0]]))
    versions = await client.versions()
    assert (versions["served"], versions["published"][0]) == (1, 1)  # `training` publishes more
    assert (await client.filetype(body=Path(__file__).read_bytes())).type == "python"


async def live(client: Any) -> None:
    events = [event async for event in client.live_primes(below=1000)]
    assert [event.event for event in events] == ["progress", "result"]
    async with contextlib.aclosing(client.ticks(last_event_id=41)) as ticks:
        assert (await anext(ticks)).id == "42"


async def members(client: Any) -> None:
    token = (await client.sign_in(body=client.Credentials(name="ada", password="lovelace"))).token
    assert (await client.me(bearer=token)).name == "ada"
    with pytest.raises(HTTPError) as caught:
        await client.me(bearer="wrong")
    assert caught.value.status == 401


async def notes(client: Any) -> None:
    note = await client.create(body=client.Draft(title="a title"))
    assert note == client.Note(id=note.id, title="a title", text="")
    changed = await client.replace(note_id=note.id, body=client.Draft(title="a", text="b"))
    assert await client.read(note_id=note.id) == changed
    assert changed in await client.newest(limit=3, search="b")
    assert await client.delete(note_id=note.id) is None


async def office(client: Any) -> None:
    basket = client.Basket(items={"pen": 2, "desk": 1})
    assert (await client.quote(body=basket)).total > 180
    assert [each.item async for each in client.pick(body=basket)] == ["pen", "desk"]
    assert [each.item for each in (await client.order(body=basket)).picked] == ["pen", "desk"]
    assert [step.failed async for step in client.walk(body=basket)] == 6 * [False]


async def text(client: Any) -> None:
    assert (await client.facts(body=b"The cat sleeps. The dog runs.")).words == 6
    assert "curl" in await client.usage()


async def training(client: Any) -> None:
    table = await client.spirals(count=20)
    job = await client.train(body=table, epochs=2)
    assert (job.route, job.links.self) == ("/training/trainings", f"/training/trainings/{job.id}")
    summary = await client.train_result(job_id=job.id, prefer="wait=30")
    assert (summary.rows, summary.epochs) == (60, 2)
    assert (await client.train_status(job_id=job.id)).state == "succeeded"
    assert job.id in [each.id for each in (await client.train_list(state="succeeded")).jobs]
    with pytest.raises(HTTPError, match="has succeeded already") as caught:
        await client.train_cancel(job_id=job.id)
    assert caught.value.status == 409


async def users(client: Any) -> None:
    assert await client.wait_io()
    ways = client.Ways(blocking=[1.0], io=[2.0], cpu=[3.0])
    measured = client.Measurement(k=1, workers=2, wait=ways, compute=ways)
    assert (await client.chart(format="png", body=measured)).startswith(b"\x89PNG")


async def vectors(client: Any) -> None:
    found = await client.nearest(body=client.Query(values=[1, 0, 0, 0, 0, 0, 0, 0]))
    assert 0 <= found.distance < 2
    async with contextlib.aclosing(client.clusters(count=2)) as rounds:
        assert (await anext(rounds)).event == "round"


CALLS = {
    each.__name__: each
    for each in (
        *(blobs, chat, gallery, hello, images, inference, live),
        *(members, notes, office, text, training, users, vectors),
    )
}


@pytest.mark.parametrize("example", [path.stem for path in EXAMPLES])
def test_example_is_called(example: str, examples: ModuleType) -> None:
    asyncio.run(CALLS[example](examples))


def test_missing_model_is_an_error_of_the_client(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with serving(str(ROOT / "examples" / "inference"), cpu_workers=1, models=str(tmp_path / "models")) as url:
        client: Any = imported(printed(url, tmp_path), tmp_path, "inference_client")
        assert asyncio.run(client.versions())["served"] is None
        with pytest.raises(CallUnavailable, match=r"There is no classifier@production yet"):
            asyncio.run(client.classify(body=client.Rows(rows=[ROW])))


# Calls of hard cases


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("client")
    with serving(client_app.__file__, cpu_workers=1, unix=str(folder / "socket")):
        yield imported(printed(f"unix:{folder / 'socket'}", folder), folder, "hard_client")


def test_values_of_all_types_come_back(hard: Any) -> None:
    item = hard.Item(
        name="a",
        colour="blue",
        level=2,
        price=decimal.Decimal("2.50"),
        when=datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
        day=datetime.date(2026, 1, 2),
        id=uuid.UUID(int=7),
        extra={"x": 1},
        raw=b"\xff\x00",
        point=(1, 2),
        pets=[hard.Cat(lives=3), hard.Dog(name="rex")],
        thing="text",
        mode="b",
        anything={"a": [None]},
    )
    assert asyncio.run(hard.put(body=item)) == item


def test_fields_that_are_left_out_get_the_defaults_of_the_service(hard: Any) -> None:
    found = asyncio.run(hard.put(body=hard.Item(name="a")))
    assert (found.colour, found.price, found.extra, found.pets) == ("red", decimal.Decimal("1.5"), {}, [])


def test_recursive_tagged_and_renamed_types(hard: Any) -> None:
    tree = hard.Tree(value=1, children=[hard.Tree(value=2)], parent=hard.Tree(value=3))
    model = hard.Model(inner=[hard.Inner(x=1)], maybe=None)

    async def calls() -> list[Any]:
        return [
            await hard.tree(body=tree),
            await hard.pet(body=hard.Dog(name="rex")),
            await hard.pet(body=None),
            await hard.pet(),
            await hard.model(body=model),
            await hard.renamed(body=hard.Renamed(firstName="Ada", class_=2)),
            await hard.found_(body=hard.Event_(list_=1)),
        ]

    assert asyncio.run(calls()) == [
        tree,
        hard.Dog(name="rex"),
        None,
        None,
        model,
        hard.Renamed(firstName="Ada", class_=2),
        hard.Event_(list_=1),
    ]


def test_bytes_forms_and_empty_responses(hard: Any) -> None:
    file = UploadFile("file", 'a "name".txt', "text/plain")
    file.file.write(b"content")

    async def calls() -> list[Any]:
        return [
            await hard.raw(body=b"\x00\xff"),
            await hard.raw(),
            await hard.empty(),
            await hard.upload(title="ü", file=file, files=[b"12", b""]),
            await hard.upload(title="t", file=b"123", files=[]),
            await hard.form(from_="a&b=c"),
            await hard.form(from_="é", age=4),
            await hard.file(path="a/b c?.txt"),
        ]

    assert asyncio.run(calls()) == [
        b"\x00\xff",
        b"",
        None,
        {"ü": 'a "name".txt text/plain 7 [2, 0]'},
        {"t": "file application/octet-stream 3 []"},
        "a&b=c 3",
        "é 4",
        b"a/b c?.txt",
    ]


def test_values_in_path_query_headers_and_cookies(hard: Any) -> None:
    defaults: dict[str, Any] = {
        "room": "",
        "sid": "",
        "colour": "red",
        "many": [],
        "maybe": None,
        "day": None,
        "level": 1,
        "flag": False,
    }
    found = asyncio.run(hard.values(class_="a/ü", x_tag="t"))
    assert found == {"class": "a/ü", "tag": "t", **defaults}
    given = {"room": "r&", "colour": "blue", "maybe": 0, "level": 2, "flag": True}
    day = datetime.date(2026, 1, 2)
    found = asyncio.run(hard.values(class_="c", x_tag="t", room_cookie="s", many_of=[1, 2], day=day, **given))
    assert found == {"class": "c", "tag": "t", "sid": "s", "many": [1, 2], "day": "2026-01-02", **given}


def test_streams_are_generators(hard: Any) -> None:
    async def items(stream: AsyncIterator[Any]) -> list[Any]:
        return [each async for each in stream]

    assert [each.name for each in asyncio.run(items(hard.lines(count=3)))] == ["0", "1", "2"]
    assert asyncio.run(items(hard.events())) == [Event("a", id="1"), Event("b\nc", event="last", retry=5)]
    assert "".join(asyncio.run(items(hard.text()))) == "a\u00e9b"
    assert b"".join(asyncio.run(items(hard.some_bytes()))) == b"\x00\xff"


def test_other_results(hard: Any) -> None:
    assert asyncio.run(hard.anything()) == {"a": [1]}
    assert [type(asyncio.run(hard.mixed(kind=kind))).__name__ for kind in ("item", "text", "none")] == [
        "Item",
        "str",
        "NoneType",
    ]
    assert asyncio.run(hard.secret(bearer="token")) == "token none"
    assert asyncio.run(hard.secret(bearer="token", x_key="key")) == "token key"


@pytest.mark.parametrize(("status", "kind"), [(404, HTTPError), (409, HTTPError), (500, CallFailed), (503, CallFailed)])
def test_errors_are_exceptions(hard: Any, status: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"It fails\."):
        asyncio.run(hard.fails(status=status))


def test_redirect_is_not_followed(hard: Any) -> None:
    with pytest.raises(CallFailed, match="303 is no result, and redirects are not followed"):
        asyncio.run(hard.moved())


def test_wrong_value_is_refused_by_the_service(hard: Any) -> None:
    with pytest.raises(HTTPError) as caught:
        asyncio.run(hard.put(body=hard.Item(name="")))
    assert (caught.value.status, caught.value.problem()["errors"][0]["place"]) == (422, "$.name")


def test_struct_is_a_msgspec_struct(hard: Any) -> None:
    assert msgspec.to_builtins(hard.Item(name="a"))["name"] == "a"
