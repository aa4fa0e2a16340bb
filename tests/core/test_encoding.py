"""core/encoding.py: one table for all values, in every kind of result."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import json
import pathlib
import sqlite3
import types
import uuid
from collections import ChainMap, UserString, deque, namedtuple
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import attrs
import httpx
import msgspec
import numpy as np
import pydantic
import pytest

from tinysvc import Batch, Form, Request, Service, WebSocket, cpu_route, io_route
from tinysvc.binding.results import encode_chunk, encode_result
from tinysvc.core.encoding import json_bytes, to_plain
from tinysvc.core.errors import UnencodableResult
from tinysvc.core.sse import Event
from tinysvc.testing import serving
from tinysvc.web.negotiation import negotiated


@dataclasses.dataclass
class Box:
    v: Any


class Struct(msgspec.Struct):
    v: Any


class Typed(msgspec.Struct):
    v: int


@attrs.define
class Attrs:
    v: Any


class ForeignZone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=2)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> None:
        return None


class Record:
    """As asyncpg's: no Mapping, and iterated by its values."""

    def keys(self) -> list[str]:
        return ["a"]

    def __getitem__(self, key: str) -> Any:
        return {1}

    def __iter__(self) -> Iterator[Any]:
        return iter([1])


class SqlAlchemyRow(tuple[Any, ...]):
    @property
    def _mapping(self) -> Any:
        return types.MappingProxyType({"a": 1})


class Colour(enum.Enum):
    RED = pathlib.Path("/red")


def sqlite_row() -> Any:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    try:
        return connection.execute("select 1 as a, x'00' as b").fetchone()
    finally:
        connection.close()


Pair = namedtuple("Pair", "x y")
HOUR = dt.timezone(dt.timedelta(hours=1))
VALUES: list[tuple[Any, Any]] = [
    (np.float32("nan"), None),
    (np.float32(0.1), 0.1),
    (np.float64(1.5), 1.5),
    (np.longdouble(1.5), 1.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.bytes_(b"ab"), "YWI="),
    (np.datetime64("NaT", "s"), None),
    (np.array([1, np.inf]), [1.0, None]),
    (np.arange(3, dtype=">i4"), [0, 1, 2]),
    (np.arange(4)[::2], [0, 2]),
    (np.array(["2024-01-01", "NaT"], "datetime64[ns]"), ["2024-01-01T00:00:00", None]),
    (np.array([1], "timedelta64[s]"), ["PT1S"]),
    (np.array(["a", None], dtype=object), ["a", None]),
    ({np.int64(1): 2}, {"1": 2}),
    ({None: 1, True: 2, 2**65: 3, pathlib.Path("/a"): 4}, {"null": 1, "true": 2, str(2**65): 3, "/a": 4}),
    (dt.time(1, 2, tzinfo=HOUR), "01:02:00+01:00"),
    (dt.datetime(2024, 1, 1, tzinfo=HOUR), "2024-01-01T00:00:00+01:00"),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "2024-01-01T00:00:00Z"),
    (dt.datetime(2024, 1, 1, tzinfo=ForeignZone()), "2024-01-01T00:00:00+02:00"),
    (dt.timedelta(days=1), "P1D"),
    (decimal.Decimal("1.50"), "1.50"),
    (decimal.Decimal("sNaN"), None),
    (float("nan"), None),
    (pathlib.Path("/a"), "/a"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (ipaddress.ip_address("::1"), "::1"),
    (Colour.RED, "/red"),
    (UserString("a"), "a"),
    (deque([{1}]), [[1]]),
    (range(2), [0, 1]),
    ({"a": 1}.keys(), ["a"]),
    (ChainMap({"a": 1}), {"a": 1}),
    (b"ab", "YWI="),
    (memoryview(b"ab"), "YWI="),
    (msgspec.Raw(b"[1]"), [1]),
    (sqlite_row(), {"a": 1, "b": "AA=="}),
    (Record(), {"a": [1]}),
    (SqlAlchemyRow((1,)), {"a": 1}),
    (Pair(1, {2}), [1, [2]]),
]
PLACES: dict[str, Callable[[Any], bytes]] = {
    "dict": lambda value: encode_result({"v": value}).content,
    "dataclass": lambda value: encode_result(Box(value)).content,
    "Struct": lambda value: encode_result(Struct(value)).content,
    "attrs": lambda value: encode_result(Attrs(value)).content,
    "stream": lambda value: encode_chunk({"v": value})[0],
    "event": lambda value: encode_chunk(Event(Box(value)))[0].removeprefix(b"data: "),
    "beside a long integer": lambda value: encode_result({"v": value, "n": 2**70}).content,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: type(value).__name__)
def test_value_is_the_same_in_every_kind_of_result(place: str, value: Any, expected: Any) -> None:
    assert json.loads(PLACES[place](value), parse_constant=pytest.fail)["v"] == expected


class Measured(msgspec.Struct):
    value: float
    note: str


def test_struct_field_of_another_type_is_encoded() -> None:
    assert encode_result(Typed(1)).content == b'{"v":1}'
    assert encode_result(Typed(np.int64(1))).content == b'{"v":1}'  # type: ignore[arg-type]
    assert encode_result(Typed(float("nan"))).content == b'{"v":null}'  # type: ignore[arg-type]


@pytest.mark.parametrize("number", ["NaN", "-sNaN12", "Infinity", "-Infinity"])
def test_decimal_nan_in_a_float_field_is_null(number: str) -> None:
    value = Measured(decimal.Decimal(number), "NaN of Infinity")  # type: ignore[arg-type]
    expected = {"value": None, "note": "NaN of Infinity"}
    for each in (value, [value], {"a": value}):
        found = json.loads(encode_result(each).content)
        assert found in (expected, [expected], {"a": expected})
    assert encode_result(Measured(decimal.Decimal("1.5"), "")).content == b'{"value":"1.5","note":""}'  # type: ignore[arg-type]


def test_pandas() -> None:
    pd = pytest.importorskip("pandas")
    stamp = pd.Timestamp("2024-01-01T05:00:00.000000001", tz="Europe/Berlin")
    frame = pd.DataFrame({"t": [pd.Timestamp("2024-01-01"), pd.NaT]})
    value = [stamp, pd.NaT, pd.NA, frame, frame["t"], pd.Series([1, 2]), pd.Timedelta("1s"), {stamp: 1}]
    day = "2024-01-01T00:00:00"
    assert json.loads(json_bytes(Struct(value)))["v"] == [
        "2024-01-01T05:00:00+01:00",
        None,
        None,
        [{"t": day}, {"t": None}],
        [day, None],
        [1, 2],
        "PT1S",
        {"2024-01-01T05:00:00+01:00": 1},
    ]


class Unknown:
    pass


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"items": [0, 1, 2, Struct({"when": Unknown()})]}, ["$.items[3].v.when", "Unknown", "dataclass"]),
        ([Box({(1, 2): 3})], ["$[0].v", "(1, 2)", "str(key)"]),
        ({"a": iter([1])}, ["$.a", "list_iterator", "return it as a list"]),
        (["\ud800"], ["$[0]", "surrogate"]),
        (1 + 2j, ["$ ", "complex"]),
    ],
)
def test_error_names_type_place_and_remedy(value: Any, words: list[str]) -> None:
    with pytest.raises(UnencodableResult) as caught:
        json_bytes(value)
    assert [word for word in words if word not in str(caught.value)] == []


def test_value_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(UnencodableResult, match="contains itself"):
        json_bytes(cycle)


class Lean(msgspec.Struct, omit_defaults=True, rename="camel", tag="lean"):
    first_name: str = ""
    tags: list[str] = []
    box: Any = msgspec.UNSET


class Row(msgspec.Struct, array_like=True, tag="row"):
    v: Any
    n: int = 1


@pytest.mark.parametrize("value", [Lean(), Lean("a"), Lean(tags=["a"]), Lean(box=1), Row(1)])
def test_struct_is_encoded_as_msgspec_does(value: Any) -> None:
    expected = msgspec.json.encode(value)
    assert json_bytes(value) == expected
    assert encode_result([value]).content == b"[%b]" % expected


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1
    _note: str = "-"
    tags: list[str] = dataclasses.field(default_factory=list)


class Basket(msgspec.Struct):
    order: Order


class Model(pydantic.BaseModel):
    item: str
    count: int = 1


WHOLE = {"item": "nail", "count": 1, "_note": "-", "tags": []}


@io_route("/io", methods=["POST"])
async def io(order: Order) -> Order:
    return order


@cpu_route("/cpu", methods=["POST"])
def cpu(orders: list[Order]) -> list[Order]:
    return orders


@cpu_route("/basket", methods=["POST"])
def basket(basket: Basket) -> Basket:
    return basket


@io_route("/form", methods=["POST"])
async def form(order: Annotated[Order, Form()]) -> Order:
    return order


@cpu_route("/batch", methods=["POST"], batch=Batch(size=2))
def batch(orders: list[Order]) -> list[Order]:
    return orders


@cpu_route("/stream", methods=["POST"])
def stream(order: Order) -> Iterator[Order]:
    yield order


@io_route("/events", methods=["POST"])
async def events(order: Order) -> Iterator[Event]:
    return iter([Event(order)])


@io_route("/packed", methods=["POST"])
async def packed(request: Request, order: Order) -> Any:
    return negotiated(request, order)


@io_route("/model", methods=["POST"])
async def model(model: Model) -> dict[str, Any]:
    return {"v": Box(model)}


@io_route("/socket")
async def socket(socket: WebSocket) -> None:
    await socket.send_json(await socket.receive_json(Order))


def test_defaults_of_a_decoded_value_are_sent() -> None:
    given = {"item": "nail"}
    service = Service(io, cpu, basket, form, batch, stream, events, packed, model)
    with serving(service, cpu_workers=1) as url:
        assert httpx.post(f"{url}/io", json=given).json() == WHOLE
        assert httpx.post(f"{url}/cpu", json=[given]).json() == [WHOLE]
        assert httpx.post(f"{url}/basket", json={"order": given}).json() == {"order": WHOLE}
        assert httpx.post(f"{url}/form", data=given).json() == WHOLE
        assert httpx.post(f"{url}/batch", json=given).json() == WHOLE
        assert httpx.post(f"{url}/stream", json=given).json() == WHOLE
        assert json.loads(httpx.post(f"{url}/events", json=given).text.removeprefix("data: ")) == WHOLE
        accept = {"accept": "application/msgpack"}
        assert msgspec.msgpack.decode(httpx.post(f"{url}/packed", json=given, headers=accept).content) == WHOLE
        assert httpx.post(f"{url}/model", json=given).json() == {"v": {"v": {"item": "nail", "count": 1}}}


def test_defaults_are_sent_over_a_websocket() -> None:
    from websockets.sync.client import connect

    with serving(Service(socket)) as url, connect(url.replace("http", "ws") + "/socket") as client:
        client.send('{"item": "nail"}')
        assert json.loads(client.recv()) == WHOLE


def test_messagepack_keeps_datetimes_and_bytes() -> None:
    now = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    assert to_plain({"v": Box([now, b"a"])}, keep=(dt.datetime, bytes)) == {"v": {"v": [now, b"a"]}}


def test_forgotten_await_is_named() -> None:
    async def result() -> int:
        return 1

    forgotten = result()
    with pytest.raises(UnencodableResult, match=r"is a coroutine; await it, as in `return await call"):
        json_bytes({"a": forgotten})
    forgotten.close()
