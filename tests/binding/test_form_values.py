"""form_values.py: forms in the notations of browsers and other clients."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

import httpx
import msgspec
import pytest

from tinysvc import Form, Service, UploadFile, cpu_route, io_route
from tinysvc.testing import serving


class Size(Enum):
    SMALL = "small"


class Item(msgspec.Struct):
    name: str
    count: int = 1


class Entry(msgspec.Struct, rename="camel"):
    given_name: str = "x"
    is_new: bool = False
    wants_mail: bool = True
    how_many: int = 7
    how_much: float | None = None
    starts_at: dt.datetime | None = None
    opens_at: dt.time | None = None
    tag_names: list[str] = []
    line_counts: list[int] = []
    first_item: Item | None = None
    all_items: list[Item] = []
    free_data: dict[str, Any] = {}
    raw_json: str = ""


@dataclass
class Strict:
    agreed: bool
    number: int | None
    files: list[UploadFile] = field(default_factory=list)


@io_route("/entry", methods=["POST"])
async def entry(entry: Annotated[Entry, Form()]) -> Entry:
    return entry


@cpu_route("/cpu-entry", methods=["POST"])
def cpu_entry(entry: Annotated[Entry, Form()]) -> Entry:
    return entry


@dataclass
class NeedsItem:
    item: Item
    number: int


@cpu_route("/needed-item", methods=["POST"])
def needed_item(form: Annotated[NeedsItem, Form()]) -> NeedsItem:
    return form


@io_route("/strict", methods=["POST"])
async def strict(form: Annotated[Strict, Form()]) -> list[Any]:
    return [form.agreed, form.number, len(form.files)]


@io_route("/single", methods=["POST"])
async def single(
    ticked: Annotated[bool, Form()],
    number: Annotated[int | None, Form()] = 5,
    day: Annotated[dt.date | None, Form()] = None,
    at: Annotated[dt.datetime | None, Form()] = None,
    size: Annotated[Size, Form()] = Size.SMALL,
    many: Annotated[list[int], Form()] = [],  # noqa: B006
    text: Annotated[str, Form()] = "-",
) -> list[Any]:
    return [ticked, number, day, at, size, many, text]


@io_route("/texts", methods=["POST"])
async def texts(
    text: Annotated[str, Form()], maybe: Annotated[str | None, Form()], many: Annotated[list[str], Form()]
) -> list[Any]:
    return [text, maybe, many]


@cpu_route("/cpu-texts", methods=["POST"])
def cpu_texts(
    text: Annotated[str, Form()], maybe: Annotated[str | None, Form()], many: Annotated[list[str], Form()]
) -> list[Any]:
    return [text, maybe, many]


@io_route("/needed", methods=["POST"])
async def needed(number: Annotated[int, Form()]) -> int:
    return number


@io_route("/search")
async def search(open: bool = False, number: int | None = None) -> list[Any]:  # noqa: A002
    return [open, number]


@io_route("/with-file", methods=["POST"])
async def with_file(item: Annotated[Item, Form()], file: UploadFile) -> list[Any]:
    return [item, file.size]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    service = Service(entry, cpu_entry, needed_item, strict, single, needed, search, with_file, texts, cpu_texts)
    with serving(service, cpu_workers=1) as url:
        yield url


JSON = "application/json"
ITEM = {"name": "nail", "count": 1}
ENTRIES: list[tuple[Any, dict[str, Any]]] = [
    ({"data": {"givenName": "é"}}, {"givenName": "é"}),
    ({"data": {"isNew": "on", "wantsMail": "off"}}, {"isNew": True, "wantsMail": False}),
    ({"data": {"howMany": "", "howMuch": " "}}, {}),
    ({"data": {"howMany": " 8 ", "howMuch": "1.5"}}, {"howMany": 8, "howMuch": 1.5}),
    ({"data": {"startsAt": "2024-01-02T03:04", "opensAt": "03:04"}},
     {"startsAt": "2024-01-02T03:04:00", "opensAt": "03:04:00"}),
    ({"data": {"startsAt": "2024-01-02T03:04Z"}}, {"startsAt": "2024-01-02T03:04:00Z"}),
    ({"data": {"startsAt": "", "givenName": ""}}, {"givenName": ""}),
    ({"data": {"tagNames": ["a", "b"], "lineCounts": ["1", "", "2"]}}, {"tagNames": ["a", "b"], "lineCounts": [1, 2]}),
    ({"files": {"firstItem": (None, '{"name":"nail"}', JSON)}}, {"firstItem": ITEM}),
    ({"files": {"firstItem": ("blob", '{"name":"nail"}', JSON)}}, {"firstItem": ITEM}),
    ({"files": {"firstItem": (None, '{"name":"nail"}')}}, {"firstItem": ITEM}),
    ({"files": {"allItems": (None, '[{"name":"nail"}]', JSON)}}, {"allItems": [ITEM]}),
    ({"files": [("allItems", ("blob", '{"name":"nail"}', JSON))] * 2}, {"allItems": [ITEM, ITEM]}),
    ({"files": {"freeData": ("blob", '{"a":[1]}', "application/ld+json; charset=utf-8")}}, {"freeData": {"a": [1]}}),
    ({"files": {"lineCounts": (None, "[1,2]", JSON)}}, {"lineCounts": [1, 2]}),
    ({"files": {"howMany": (None, "8", JSON), "isNew": (None, "true", JSON)}}, {"howMany": 8, "isNew": True}),
    ({"files": {"rawJson": (None, '{"a":1}', JSON)}}, {"rawJson": '{"a":1}'}),
    ({"files": {"rawJson": ("blob", '{"a":1}', JSON)}}, {"rawJson": '{"a":1}'}),
    ({"files": {"givenName": (None, ' "A\\u0041"', JSON)}}, {"givenName": "AA"}),
    ({"files": {"givenName": ("blob", '"a"', JSON)}}, {"givenName": "a"}),
    ({"files": {"givenName": (None, '"a"')}}, {"givenName": '"a"'}),
    ({"files": {"tagNames": (None, '["a", "b"]', JSON)}}, {"tagNames": ["a", "b"]}),
    ({"files": [("tagNames", (None, '"a"', JSON)), ("tagNames", (None, "b"))]}, {"tagNames": ["a", "b"]}),
]  # fmt: skip


@pytest.mark.parametrize("path", ["entry", "cpu-entry"])
@pytest.mark.parametrize(("sent", "expected"), ENTRIES)
def test_whole_form(url: str, path: str, sent: Any, expected: dict[str, Any]) -> None:
    answer = httpx.post(f"{url}/{path}", **sent)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {**msgspec.to_builtins(Entry()), **expected}


SINGLE: list[Any] = [False, 5, None, None, "small", [], "-"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"text": ""}, [*SINGLE[:-1], ""]),
        ({"ticked": "on"}, [True, *SINGLE[1:]]),
        ({"ticked": ["0", "1"]}, [True, *SINGLE[1:]]),
        ({"number": "", "day": "", "at": "", "size": "", "many": ["", ""]}, [False, None, *SINGLE[2:]]),
        ({"at": "2024-01-02T03:04"}, [False, 5, None, "2024-01-02T03:04:00", *SINGLE[4:]]),
    ],
)
def test_single_fields(url: str, sent: Any, expected: list[Any]) -> None:
    sent = {"x": "y", **sent}
    assert httpx.post(f"{url}/single", data=sent).json() == expected


@pytest.mark.parametrize("path", ["texts", "cpu-texts"])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([("text", '"a\\n"'), ("maybe", '"b"'), ("many", '["c", "d"]')], ["a\n", "b", ["c", "d"]]),
        ([("text", '{"a": 1}'), ("maybe", "[2]"), ("many", '"c"'), ("many", '"d"')], ['{"a": 1}', "[2]", ["c", "d"]]),
    ],
)
def test_json_part_for_a_text(url: str, path: str, parts: Any, expected: list[Any]) -> None:
    for filename in (None, "blob"):
        files = [(name, (filename, text, JSON)) for name, text in parts]
        assert httpx.post(f"{url}/{path}", files=files).json() == expected


def test_json_part_that_is_malformed_for_a_text(url: str) -> None:
    files: Any = {"text": (None, '"a', JSON), "maybe": (None, "b"), "many": (None, "c")}
    answer = httpx.post(f"{url}/texts", files=files)
    assert (answer.status_code, answer.json()["errors"][0]["place"]) == (422, "form.text")
    assert httpx.post(f"{url}/entry", files={"givenName": (None, '"a', JSON)}).status_code == 422


def test_number_out_of_range_in_a_json_part_gets_its_place(url: str) -> None:
    answer = httpx.post(f"{url}/entry", files={"freeData": (None, '{"a": [1, 1e999]}', JSON)})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"place": "form.freeData", "detail": "Number out of range - at `$.a[1]`"}]


def test_checkbox_and_blank_without_a_default(url: str) -> None:
    assert httpx.post(f"{url}/strict", data={"number": ""}).json() == [False, None, 0]
    files = [("files", ("a", b"1")), ("files", ("b", b"2"))]
    assert httpx.post(f"{url}/strict", data={"number": "1", "agreed": "on"}, files=files).json() == [True, 1, 2]


def test_checkbox_of_a_form_that_is_sent_by_get(url: str) -> None:
    assert httpx.get(f"{url}/search?open=on&number=").json() == [True, None]


@pytest.mark.parametrize("filename", [None, "blob"])
def test_json_part_beside_a_file(url: str, filename: str | None) -> None:
    files: Any = {"item": (filename, '{"name":"nail"}', JSON), "file": ("a", b"12")}
    assert httpx.post(f"{url}/with-file", files=files).json() == [ITEM, 2]
    assert httpx.post(f"{url}/with-file", data={"name": "nail"}, files={"file": ("a", b"1")}).json() == [ITEM, 1]


@pytest.mark.parametrize(
    ("path", "sent", "words"),
    [
        ("needed", {"data": {"number": ""}}, ["form.number", "int", "''"]),
        ("needed", {"files": {"number": (None, "{", JSON)}}, ["form.number"]),
        ("entry", {"data": {"howMany": "x"}}, ["form.howMany", "int"]),
        ("entry", {"files": {"firstItem": (None, "{", JSON)}}, ["form.firstItem", "is not JSON"]),
        ("entry", {"files": {"firstItem": (None, '{"count":1}', JSON)}}, ["form.firstItem", "name"]),
        (
            "entry",
            {"files": {"firstItem": (None, "{", JSON), "howMany": (None, "x"), "allItems": (None, "[", JSON)}},
            ["form.firstItem: is not JSON", "form.howMany: Expected `int`", "form.allItems: is not JSON"],
        ),
        (
            "needed-item",
            {"files": {"item": (None, "{", JSON), "number": (None, "x")}},
            ["form.item: is not JSON", "form.number: Expected `int`"],
        ),
    ],
)
def test_fields_that_cannot_be_read_get_422(url: str, path: str, sent: Any, words: list[str]) -> None:
    answer = httpx.post(f"{url}/{path}", **sent)
    assert answer.status_code == 422
    assert [word for word in words if word not in answer.json()["detail"]] == []
