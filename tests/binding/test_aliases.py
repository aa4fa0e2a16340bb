"""aliases.py: type aliases are replaced by their types."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Generic, NewType, TypedDict, TypeVar, Union

import httpx
import msgspec
import pytest
from typing_extensions import TypeAliasType
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tinysvc import Bearer, Header
from tinysvc.binding.aliases import is_recursive_alias, without_aliases
from tinysvc.binding.binder import Binder
from tinysvc.binding.schemas import Schemas
from tinysvc.core.errors import BindingError
from tinysvc.core.headers import Headers
from tinysvc.core.requests import Request
from tinysvc.testing import serving

T = TypeVar("T")
K = TypeVar("K")

Tags = TypeAliasType("Tags", list[str])
Many = TypeAliasType("Many", list[T], type_params=(T,))
Swapped = TypeAliasType("Swapped", dict[T, K], type_params=(K, T))  # type: ignore[misc, unused-ignore]
Token = TypeAliasType("Token", Annotated[str, Bearer()])
Json = TypeAliasType("Json", "bool | int | float | str | list[Json] | dict[str, Json] | None")
Tree = TypeAliasType("Tree", "dict[str, Tree | int]")
UserId = NewType("UserId", int)


@dataclasses.dataclass
class Plain:
    value: Json
    tags: Tags = dataclasses.field(default_factory=list)


class Struct(msgspec.Struct):
    value: Json


class Typed(TypedDict):
    value: Json


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


@pytest.mark.parametrize(
    ("alias", "plain"),
    [
        (Tags, list[str]),
        (Many[int], list[int]),
        (Many[Tags], list[list[str]]),
        (Swapped[int, str], dict[str, int]),
        (Token, Annotated[str, Bearer()]),
        (Annotated[Tags, Header()], Annotated[list[str], Header()]),
        (Union[Tags, None], list[str] | None),  # noqa: UP007 - no alias of Python 3.11 has `|`
        (dict[str, Tags], dict[str, list[str]]),
        (UserId, int),
        (Page[Tags], Page[list[str]]),
    ],
)
def test_alias_is_replaced_by_its_type(alias: Any, plain: Any) -> None:
    assert without_aliases(alias) == plain


def test_annotation_without_alias_is_the_same_object() -> None:
    annotation = Annotated[dict[str, list[int] | None], "x"]
    assert without_aliases(annotation) is annotation


def bound(annotation: Any, body: bytes) -> Any:
    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    try:
        return Binder(handler).bind(Request("POST", "/", "", Headers([])), body, {})["value"]
    except BindingError as error:
        return error.faults


def test_alias_that_contains_itself() -> None:
    assert is_recursive_alias(without_aliases(Tree).__args__[1])
    assert bound(Json, b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert bound(Tree, b'{"a": {"b": 1}}') == {"a": {"b": 1}}
    assert bound(Tree, b'{"a": {"b": "x", "c": null}}') == [
        ("$.a.b", "Expected `int | object`, got `str`"),
        ("$.a.c", "Expected `int | object`, got `null`"),
    ]


@pytest.mark.parametrize("kind", [Plain, Struct, Typed])
def test_aliases_in_fields(kind: Any) -> None:
    before = dict(kind.__annotations__)
    value = bound(kind, b'{"value": [{"a": [1]}]}')
    assert (value["value"] if kind is Typed else value.value) == [{"a": [1]}]
    assert kind.__annotations__ == before


def test_aliases_have_schemas() -> None:
    schemas = Schemas([without_aliases(Tree), Plain])
    assert schemas.of(without_aliases(Tree)) != {}
    assert "Plain" in schemas.components


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements")
def test_type_statements() -> None:
    names: dict[str, Any] = {"__name__": __name__}
    exec("type Pair[A] = tuple[A, A]\ntype Chain = None | list[Chain]", names)
    assert without_aliases(names["Pair"][int]) == tuple[int, int]
    assert bound(names["Chain"], b"[[[], null]]") == [[[], None]]


# Served

SERVED = {
    "Token": "Annotated[str, Bearer()]",
    "Page": "Annotated[int, Query()]",
    "Pages": "list[Page]",
    "Names": "list[Name]",
    "Name": "str",
    "Tags": "list[Name]",
    "Language": 'Annotated[str, Header("accept-language")]',
    "Json": "bool | int | float | str | list[Json] | dict[str, Json] | None",
    "Order": "Item",
    "Octets": "bytes",
    "File": "UploadFile",
    "Files": "list[File]",
    "Title": 'Annotated[Name, Form("the-title")]',
    "Sent": "Annotated[Fields, Form()]",
    "Asked": "Request",
    "Socket": "WebSocket",
    "Live": "AsyncIterator[Order]",
    "Made": "Iterator[Order]",
    "Results": "list[Name]",
}

SERVICE = """
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from typing_extensions import TypeAliasType

from tinysvc import (
    Batch, Bearer, Form, Header, HTTPError, Query, Request, UploadFile, WebSocket, cpu_route, io_resource, io_route
)

{aliases}

@dataclass
class Item:
    name: Name
    tags: Tags
    more: Json = None

@dataclass
class Fields:
    title: Name
    file: File
    tags: Tags

def answer(*values: Any) -> list[Any]:
    return [f"{{each.filename}} {{each.size}}" if isinstance(each, UploadFile) else each for each in values]

@io_resource
async def user(token: Token) -> Name:
    if token != "sesame":
        raise HTTPError(403, "This token is nobody's.")
    return "ada"

@io_route("/io/me")
async def me(user: Name, page: Page, tags: Tags, asked: Asked) -> Json:
    return answer(user, page, tags, asked.method)

@cpu_route("/cpu/me")
def cpu_me(user: Name, page: Page, tags: Tags, asked: Asked) -> Json:
    return answer(user, page, tags, asked.method)

@io_route("/io/token")
async def token(token: Token) -> Name:
    return token

@cpu_route("/cpu/token")
def cpu_token(token: Token) -> Name:
    return token

@io_route("/io/order", methods=["POST"])
async def order(order: Order) -> Order:
    return order

@cpu_route("/cpu/order", methods=["POST"])
def cpu_order(order: Order) -> Order:
    return order

@io_route("/io/json", methods=["POST"])
async def any_json(value: Json) -> Json:
    return value

@cpu_route("/cpu/json", methods=["POST"])
def cpu_json(value: Json) -> Json:
    return value

@io_route("/io/octets", methods=["POST"])
async def octets(body: Octets) -> int:
    return len(body)

@cpu_route("/cpu/octets", methods=["POST"])
def cpu_octets(body: Octets) -> int:
    return len(body)

@io_route("/io/files", methods=["POST"])
async def files(title: Title, file: File, files: Files) -> Json:
    return answer(title, *answer(file, *files))

@cpu_route("/cpu/files", methods=["POST"])
def cpu_files(title: Title, file: File, files: Files) -> Json:
    return answer(title, *answer(file, *files))

@io_route("/io/sent", methods=["POST"])
async def sent(form: Sent) -> Json:
    return answer(form.title, form.file, form.tags)

@cpu_route("/cpu/sent", methods=["POST"])
def cpu_sent(form: Sent) -> Json:
    return answer(form.title, form.file, form.tags)

@cpu_route("/batch", batch=Batch(4))
def batch(page: Pages, user: Names) -> Results:
    return [f"{{who}} {{number + 1}}" for who, number in zip(user, page, strict=True)]

@cpu_route("/cached", cache=60)
def cached(language: Language, page: Page) -> Json:
    return [language, page + 1]

@cpu_route("/cached-token", cache=60)
def cached_token(token: Token) -> Name:
    return token

@io_route("/io/stream")
async def live(page: Page) -> Live:
    for number in range(page):
        yield Item(str(number), [])

@cpu_route("/cpu/stream")
def made(page: Page) -> Made:
    for number in range(page):
        yield Item(str(number), [])

@io_route("/socket")
async def socket(socket: Socket, user: Name, page: Page) -> None:
    await socket.accept()
    await socket.send(f"{{user}} {{page + 1}}")
"""


def source(way: str) -> str:
    statement = "type {0} = {1}" if way == "type statement" else '{0} = TypeAliasType("{0}", {1!r})'
    future = "from __future__ import annotations\n" if way == "with future" else ""
    return future + SERVICE.format(aliases="\n".join(statement.format(*each) for each in SERVED.items()))


WAYS = ["TypeAliasType", "with future", "type statement"]


@pytest.fixture(scope="module", params=WAYS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "type statement" and sys.version_info < (3, 12):
        pytest.skip("the syntax of Python 3.12")
    path: Path = tmp_path_factory.mktemp("service") / f"aliased_{WAYS.index(request.param)}.py"
    path.write_text(source(request.param))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        with serving(str(path), cpu_workers=1) as url:
            yield url


TOKEN = {"authorization": "Bearer sesame"}
SIDES = pytest.mark.parametrize("side", ["io", "cpu"])


@SIDES
def test_aliased_parameters_and_resources(url: str, side: str) -> None:
    asked = f"{url}/{side}/me?page=2&tags=a&tags=b"
    assert httpx.get(asked, headers=TOKEN).json() == ["ada", 2, ["a", "b"], "GET"]
    assert httpx.get(asked, headers={"authorization": "Bearer x"}).status_code == 403
    answer = httpx.get(asked)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@SIDES
def test_aliased_token_is_not_read_from_the_query(url: str, side: str) -> None:
    assert httpx.get(f"{url}/{side}/token", headers=TOKEN).text == "sesame"
    assert httpx.get(f"{url}/{side}/token?token=sesame").status_code == 401


@SIDES
def test_aliased_bodies(url: str, side: str) -> None:
    order = {"name": "nail", "tags": ["a"], "more": [{"b": [None, 1.5]}]}
    assert httpx.post(f"{url}/{side}/order", json=order).json() == order
    answer = httpx.post(f"{url}/{side}/order", json={"name": 1, "tags": [2]})
    assert [error["place"] for error in answer.json()["errors"]] == ["$.name", "$.tags[0]"]
    assert httpx.post(f"{url}/{side}/json", json=order).json() == order
    assert httpx.post(f"{url}/{side}/octets", content=b"123").json() == 3


@SIDES
def test_aliased_uploads_and_forms(url: str, side: str) -> None:
    files: Any = [("file", ("a", b"1")), ("files", ("b", b"22")), ("files", ("c", b""))]
    answer = httpx.post(f"{url}/{side}/files", data={"the-title": "t"}, files=files)
    assert answer.json() == ["t", "a 1", "b 2", "c 0"]
    answer = httpx.post(f"{url}/{side}/sent", data={"title": "t", "tags": ["x", "y"]}, files=files[:1])
    assert answer.json() == ["t", "a 1", ["x", "y"]]


@SIDES
def test_aliased_streams(url: str, side: str) -> None:
    answer = httpx.get(f"{url}/{side}/stream?page=2")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [msgspec.json.decode(line)["name"] for line in answer.text.splitlines()] == ["0", "1"]


def test_aliased_lists_of_a_batch(url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = threads.map(lambda page: httpx.get(f"{url}/batch?page={page}", headers=TOKEN).text, range(4))
        assert list(answers) == [f"ada {page + 1}" for page in range(4)]
    assert httpx.get(f"{url}/batch?page=1").status_code == 401


def test_aliased_headers_and_tokens_of_a_cached_route(url: str) -> None:
    for language in ("de", "en", "de"):
        answer = httpx.get(f"{url}/cached?page=1", headers={"accept-language": language})
        assert answer.json() == [language, 2]
        assert answer.headers["vary"] == "accept-language"
    assert httpx.get(f"{url}/cached-token", headers=TOKEN).headers["cache-control"].startswith("private")
    assert httpx.get(f"{url}/cached-token").status_code == 401


def test_aliased_websocket(url: str) -> None:
    address = url.replace("http", "ws") + "/socket?page=1"
    with connect(address, additional_headers=TOKEN) as socket:
        assert socket.recv(timeout=20) == "ada 2"
    with pytest.raises(InvalidStatus, match="401"):
        connect(address).close()


def test_aliases_are_in_the_document(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert paths["/io/token"]["get"]["security"]
    assert "parameters" not in paths["/io/token"]["get"]
    assert [each["in"] for each in paths["/cached"]["get"]["parameters"]] == ["header", "query"]
