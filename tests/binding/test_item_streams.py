"""item_streams.py: a handler takes the lines of a body as they arrive."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tinysvc import HTTPError, Request, Service, cpu_route, io_route
from tinysvc.binding import item_streams
from tinysvc.binding.binder import Binder
from tinysvc.binding.outgoing import RequestWriter
from tinysvc.core.errors import BindingError, ConfigurationError
from tinysvc.core.headers import Headers
from tinysvc.service.plan import plans_of
from tinysvc.testing import serving


@dataclasses.dataclass
class Item:
    count: int


async def take(items: AsyncIterator[Item]) -> None: ...


async def read(pieces: list[bytes], content_type: str = "application/x-ndjson") -> list[Any]:
    async def arriving() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    request = Request("POST", "/", headers=Headers([(b"content-type", content_type.encode())]), body=arriving())
    items = Binder(take).bind(request, b"", {})["items"]
    return [each async for each in items]


@pytest.mark.asyncio
async def test_lines_become_items_however_they_are_cut() -> None:
    body = b'{"count": 1}\n\n{"count": 2}\r\n{"count": 3}'
    for size in (1, 7, 100):
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
        assert await read(pieces) == [Item(1), Item(2), Item(3)]
    assert await read([]) == []


@pytest.mark.asyncio
async def test_wrong_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BindingError, match=r"^422 \$\[1\]: "):
        await read([b'{"count": 1}\n{"count": "x"}\n'])
    with pytest.raises(BindingError, match=r"\$\[0\]: .*not JSON"):
        await read([b"{\n"])
    with pytest.raises(HTTPError, match="415 The body must be lines of JSON"):
        await read([], "application/json")
    monkeypatch.setattr(item_streams, "MAX_LINE", 20)
    for pieces in ([b"x" * 21], [b"x" * 15, b"x" * 15], [b'{"count": 1}' + b" " * 20 + b"\n"]):
        with pytest.raises(HTTPError, match="413 A line of the body has more than 20 bytes; send it as several items"):
            await read(pieces)


@io_route("/total", methods=["POST"])
async def total(items: AsyncIterator[Item]) -> int:
    return sum([each.count async for each in items])


def test_stream_over_http() -> None:
    import httpx

    with serving(Service(total)) as url:
        headers = {"content-type": "application/x-ndjson"}
        assert httpx.post(f"{url}/total", content=b'{"count": 1}\n{"count": 2}\n', headers=headers).json() == 3
        assert httpx.post(f"{url}/total", content=b'{"count": "a"}\n', headers=headers).status_code == 422
        document = httpx.get(f"{url}/openapi.json").json()
    body = document["paths"]["/total"]["post"]["requestBody"]
    assert list(body["content"]) == ["application/x-ndjson"]


@pytest.mark.asyncio
async def test_call_sends_the_items_as_lines() -> None:
    binder = Binder(total)
    sent = RequestWriter(total, "POST", "/total", binder.inputs).write({"items": [Item(1), Item(2)]})
    assert ("content-type", "application/x-ndjson") in sent.headers
    assert not sent.can_repeat
    assert callable(sent.body)
    assert [each async for each in sent.body()] == [b'{"count":1}\n', b'{"count":2}\n']


@cpu_route("/cpu", methods=["POST"])
def in_a_worker(items: AsyncIterator[int]) -> int:
    return 1


@io_route("/get")
async def without_body(items: AsyncIterator[int]) -> None: ...


NOTHING: Any = None


@io_route("/default", methods=["POST"])
async def with_default(items: AsyncIterator[int] = NOTHING) -> None: ...


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (in_a_worker, "only an @io_route with `async def` can read"),
        (without_body, r'give it methods=\["POST"\]'),
        (with_default, "a stream, which has no default"),
    ],
)
def test_handler_that_cannot_take_a_stream_is_refused(handler: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        list(plans_of(Service(handler)))
