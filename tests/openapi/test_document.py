"""openapi.py: the document is valid, says what is true, and the examples answer as theirs says."""

from __future__ import annotations

import enum
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import hypothesis
import msgspec
import pydantic
import pytest
import schemathesis
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tinysvc import (
    ApiKey,
    Batch,
    Bearer,
    ConfigurationError,
    Cookie,
    Event,
    EventStream,
    Form,
    Header,
    Query,
    Request,
    Response,
    Service,
    UploadFile,
    WebSocket,
    cpu_route,
    io_resource,
    io_route,
)
from tinysvc.core.settings import Settings
from tinysvc.openapi.document import document
from tinysvc.service.plan import wiring_of
from tinysvc.testing import serving

EXAMPLES = Path(__file__).parents[2] / "examples"


def described(*parts: Any, **options: Any) -> dict[str, Any]:
    """The document, which is valid; what JSON cannot say is not in it."""
    service = Service(*parts)
    found: dict[str, Any] = json.loads(
        msgspec.json.encode(document(service, map(wiring_of, service.mounted()), Settings(**options)))
    )
    validate(found)
    return found


def operation(*parts: Any, path: str = "/", method: str = "get", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = described(*parts, **options)["paths"][path][method]
    return found


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    """One of several."""

    name: Annotated[str, msgspec.Meta(min_length=1, examples=["nail"])]
    colour: Colour = Colour.RED


@dataclass
class Order:
    items: list[Item]
    note: str | None = None


class Model(pydantic.BaseModel):
    inner: list[Inner]


class Inner(pydantic.BaseModel):
    x: int


@io_resource
async def tenant(request: Request, x_tenant: Annotated[int, Header()]) -> int:
    return x_tenant


@io_resource
async def user(token: Annotated[str, Bearer()], tenant: int) -> str:
    return token


@io_route("/orders/{number}", methods=["PUT"], tags=["shop"], responses={404: "No such order.", 201: Order}, example={})
async def put_order(
    number: int,
    order: Order,
    user: str,
    session: Annotated[str, Cookie("sid")] = "",
    sort: Annotated[Literal["up", "down"], Query(), msgspec.Meta(description="Which way.")] = "up",
    many: Annotated[list[int], Query()] = [],  # noqa: B006
) -> Order:
    """Write an order.

    All of it, as *one*.
    """
    return order


def test_what_goes_in() -> None:
    found = operation(put_order, user, tenant, path="/orders/{number}", method="put")
    parameters = {(each["in"], each["name"]): each for each in found["parameters"]}
    assert set(parameters) == {
        ("path", "number"),
        ("cookie", "sid"),
        ("query", "sort"),
        ("query", "many"),
        ("header", "x-tenant"),
    }
    assert parameters["path", "number"] == {
        "name": "number",
        "in": "path",
        "required": True,
        "schema": {"type": "integer"},
    }
    assert parameters["header", "x-tenant"]["required"]
    assert parameters["query", "sort"]["description"] == "Which way."
    assert parameters["query", "sort"]["schema"] == {"enum": ["down", "up"], "default": "up"}
    assert parameters["query", "many"]["schema"] == {"type": "array", "items": {"type": "integer"}, "default": []}
    assert found["requestBody"] == {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}, "example": {}}},
        "required": True,
    }
    assert found["security"] == [{"bearer": []}]


def test_what_is_said_of_it() -> None:
    found = operation(put_order, user, tenant, path="/orders/{number}", method="put")
    assert (found["summary"], found["description"]) == ("Write an order.", "All of it, as *one*.")
    assert (found["operationId"], found["tags"]) == ("put_order", ["shop"])
    assert found["x-tinysvc"] == {"kind": "io"}


def test_what_comes_out() -> None:
    responses = operation(put_order, user, tenant, path="/orders/{number}", method="put")["responses"]
    assert set(responses) == {"201", "400", "401", "404", "413", "415", "422"}
    assert responses["201"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
    assert responses["404"]["description"] == "No such order."
    assert responses["422"]["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_components() -> None:
    components = described(put_order, user, tenant)["components"]
    assert set(components["schemas"]) == {"Problem", "Order", "Item", "Colour"}
    assert components["schemas"]["Item"]["description"] == "One of several."
    assert components["schemas"]["Item"]["properties"]["name"]["examples"] == ["nail"]
    assert "description" not in components["schemas"]["Order"]  # the one that dataclass makes by itself
    assert components["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}


@cpu_route("/", timeout=2.5, limit=2, batch=Batch(8, 0.1), deprecated=True, summary="Short")
def batched(x: list[int]) -> list[Item]:
    """Long."""
    return []


@cpu_route("/kept", cache=60, timeout=0)
def kept() -> None: ...


def test_where_it_runs() -> None:
    found = operation(batched)
    assert found["x-tinysvc"] == {
        "kind": "cpu",
        "pool": "default",
        "timeout": 2.5,
        "limit": 2,
        "batch": {"size": 8, "wait": 0.1},
    }
    assert (found["deprecated"], found["summary"], found["description"]) == (True, "Short", "Long.")
    assert set(found["responses"]) == {"200", "400", "422", "503", "504"}
    assert found["responses"]["200"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Item"}
    found = operation(kept, path="/kept")
    assert found["x-tinysvc"] == {"kind": "cpu", "pool": "default", "cache": 60}
    assert set(found["responses"]) == {"204", "503"}


@pytest.mark.parametrize(
    ("annotation", "status", "media"),
    [
        (None, "204", None),
        (str, "200", "text/plain"),
        (bytes, "200", "application/octet-stream"),
        (dict[str, int], "200", "application/json"),
        (Any, "200", "*/*"),
        (Response, "200", "*/*"),
        (EventStream, "200", "text/event-stream"),
        (AsyncIterator[Event], "200", "text/event-stream"),
        (AsyncIterator[Item], "200", "application/x-ndjson"),
        (AsyncIterator[str], "200", "text/plain"),
        (AsyncIterator, "200", "*/*"),
        (list[Model], "200", "application/json"),
        (httpx.Client, "200", "application/json"),
    ],
)
def test_results(annotation: Any, status: str, media: str | None) -> None:
    @io_route("/")
    async def handler() -> None: ...

    handler.__annotations__["return"] = annotation
    responses = operation(handler)["responses"]
    assert list(responses) == [status]
    assert list(responses[status].get("content", {})) == ([media] if media else [])


def test_one_of_several_results() -> None:
    @io_route("/")
    async def handler() -> Item | str | int | None: ...

    assert set(operation(handler)["responses"]) == {"200", "204"}
    content = operation(handler)["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/plain"}
    assert content["application/json"]["schema"] == {
        "anyOf": [{"$ref": "#/components/schemas/Item"}, {"type": "integer"}]
    }


def test_the_lines_of_a_stream() -> None:
    @io_route("/")
    async def handler() -> AsyncIterator[Item]:
        yield Item("nail")

    found = described(handler)
    assert found["paths"]["/"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"] == {
        "type": "string",
        "contentMediaType": "application/x-ndjson",
        "contentSchema": {"$ref": "#/components/schemas/Item"},
    }


def test_what_an_author_says_of_failures() -> None:
    @io_route("/", responses={HTTPStatus.CONFLICT: Item, 422: Item, 499: int, 404: "None.", 204: None})
    async def handler(x: int) -> None: ...

    responses = operation(handler)["responses"]
    assert {status: list(said.get("content", {})) for status, said in responses.items()} == {
        "204": [],
        "400": ["application/problem+json"],
        "404": ["application/problem+json"],
        "409": ["application/json"],
        "422": ["application/problem+json", "application/json"],
        "499": ["application/json"],
    }
    assert responses["409"]["description"] == "Conflict"
    with pytest.raises(ConfigurationError, match=r"responses takes a sentence or a type, as in .*, not \{'model': "):
        io_route("/", responses={404: {"model": Item}})(handler)


@dataclass
class Problem:
    answer: int


def test_an_author_may_have_a_problem_too() -> None:
    @io_route("/", methods=["POST"])
    async def handler(problem: Problem) -> None: ...

    schemas = described(handler)["components"]["schemas"]
    assert set(schemas) == {"Problem", "tinysvc.Problem"}
    assert set(schemas["Problem"]["properties"]) == {"answer"}


@dataclass
class Upload:
    photo: UploadFile
    title: str = ""


@io_route("/fields", methods=["POST"])
async def fields(name: Annotated[str, Form()], age: Annotated[int, Form()] = 3) -> None: ...


@io_route("/files", methods=["POST"])
async def files(photos: list[UploadFile], title: Annotated[str, Form()] = "") -> None: ...


@io_route("/whole", methods=["POST"])
async def whole(upload: Annotated[Upload, Form()]) -> None: ...


@io_route("/raw", methods=["POST"])
async def raw(body: bytes) -> None: ...


def test_bodies() -> None:
    paths = described(fields, files, whole, raw)["paths"]
    content = {path: paths[path]["post"]["requestBody"]["content"] for path in paths}
    assert set(content["/fields"]) == {"multipart/form-data", "application/x-www-form-urlencoded"}
    assert content["/fields"]["multipart/form-data"]["schema"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "default": 3}},
        "required": ["name"],
    }
    assert set(content["/files"]) == set(content["/whole"]) == {"multipart/form-data"}
    photos = content["/files"]["multipart/form-data"]["schema"]["properties"]["photos"]
    assert photos == {"type": "array", "items": {"type": "string", "format": "binary"}}
    assert content["/whole"]["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/Upload"}
    assert content["/raw"] == {"application/octet-stream": {"schema": {}}}


@io_route("/pydantic", methods=["POST"])
async def pydantic_model(model: Model) -> Model:
    return model


def test_pydantic_models() -> None:
    found = described(pydantic_model)
    assert set(found["components"]["schemas"]) == {"Problem", "Model", "Inner"}
    body = found["paths"]["/pydantic"]["post"]["requestBody"]["content"]["application/json"]
    assert body == {"schema": {"$ref": "#/components/schemas/Model"}}


@io_route("/keys")
async def keys(
    key: Annotated[str, ApiKey("x-key")] = "", other: Annotated[str, ApiKey("k", "query")] = "", q: str = ""
) -> None: ...


@io_route("/one-key")
async def one_key(token: Annotated[str, Bearer()], key: Annotated[str, ApiKey("x-key")] = "") -> None: ...


def test_a_key_of_two_that_may_be_missing() -> None:
    found = described(one_key)["paths"]["/one-key"]["get"]
    assert found["security"] == [{"bearer": [], "x-key": []}, {"bearer": []}]


def test_keys_that_may_be_missing() -> None:
    found = described(keys)
    assert found["components"]["securitySchemes"] == {
        "x-key": {"type": "apiKey", "in": "header", "name": "x-key"},
        "k": {"type": "apiKey", "in": "query", "name": "k"},
    }
    assert found["paths"]["/keys"]["get"]["security"] == [{"x-key": [], "k": []}, {}]
    assert [each["name"] for each in found["paths"]["/keys"]["get"]["parameters"]] == ["q"]


@io_route("/socket/{room:path}")
async def socket(socket: WebSocket, room: str) -> None: ...


@io_route("/things/{first}/parts/{second}")
async def read_part(first: int, second: str) -> None: ...


@io_route("/things/{thing}/parts/{part}", methods=["PUT"])
async def put_part(part: str, thing: int, first: str) -> None: ...


def test_paths_that_differ_in_the_names_of_parameters_only_are_one() -> None:
    ((path, operations),) = described(read_part, put_part)["paths"].items()
    assert path == "/things/{first}/parts/{second}"
    assert [(each["name"], each["in"]) for each in operations["put"]["parameters"]] == [
        ("second", "path"),
        ("first", "path"),
        ("first", "query"),
    ]


def test_a_socket() -> None:
    found = operation(socket, path="/socket/{room}")
    assert set(found["responses"]) == {"101", "400", "403", "426"}
    assert found["parameters"][0]["x-tinysvc"] == {"takes_slashes": True}


@io_route("/limited", limit=3, timeout=2)
async def limited() -> str:
    return ""


def test_limits_of_an_io_route() -> None:
    found = operation(limited, path="/limited")
    assert found["x-tinysvc"] == {"kind": "io", "timeout": 2, "limit": 3}
    assert set(found["responses"]) == {"200", "503", "504"}


@io_route("/a", methods=["GET", "POST"])
@io_route("/b")
async def stacked() -> None: ...


def test_every_operation_has_a_name_of_its_own() -> None:
    paths = described(Service(stacked, prefix="/x", name="x"), Service(stacked, limited, prefix="/y", name="y"))[
        "paths"
    ]
    names = [each["operationId"] for path in paths.values() for each in path.values()]
    assert len(set(names)) == len(names) == 7
    assert "limited" in names
    assert {each["tags"][0] for path in paths.values() for each in path.values()} == {"x", "y"}


def test_what_the_whole_is_called() -> None:
    assert described(limited)["info"] == {"title": "tinysvc", "version": "0"}
    service = Service(limited, name="shop", description="Sells.", version="1.2")
    info = document(service, map(wiring_of, service.mounted()), Settings())["info"]
    assert info == {"title": "shop", "description": "Sells.", "version": "1.2"}
    service = Service(sys.modules[__name__], name="tests")
    assert (service.name, service.version) == ("tests", "0")
    assert service.description.startswith("openapi.py: the document")


# As it is served


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    sys.modules.pop("gallery", None)
    with serving(str(EXAMPLES), cpu_workers=2) as url:
        yield url


def test_the_document_is_served(url: str) -> None:
    answer = httpx.get(f"{url}/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    validate(answer.json())
    again = httpx.get(f"{url}/openapi.json", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert {tag["name"] for tag in answer.json()["tags"]} == {path.stem for path in EXAMPLES.glob("*.py")}


def test_it_can_be_left_out_or_be_somebody_elses() -> None:
    @io_route("/openapi.json")
    async def own() -> str:
        return "mine"

    with serving(Service(limited), docs=False) as url:
        assert httpx.get(f"{url}/openapi.json").status_code == 404
    with serving(Service(own)) as url:
        assert httpx.get(f"{url}/openapi.json").text == "mine"


CASES = int(os.environ.get("SCHEMATHESIS_CASES", "4"))
"""Of each operation; more for a longer look."""

NOT_ASKED = r"/users/(measure|chart)|/chat/rooms/|/hello/primes/|/live/ticks"
"""What measures the machine, WebSocket, of which a schema can say nothing, what computes until its deadline, and
what ticks for seconds."""


def answers_as_said(case: schemathesis.Case[Any]) -> None:
    answer = case.call()
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    if answer.status_code not in (503, 504):  # where they may be, they are documented
        checks.append(not_a_server_error)
    case.validate_response(answer, checks=checks)


@pytest.mark.parametrize("mode", [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE])
def test_the_examples_answer_as_their_document_says(url: str, mode: schemathesis.GenerationMode) -> None:
    """Whatever fits the schemas, and what does not, gets a status that is documented, and never a 500."""
    few = hypothesis.settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    tested = 0
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json").exclude(path_regex=NOT_ASKED)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        cases = found.ok().as_strategy(generation_mode=mode)
        try:
            few(hypothesis.given(cases)(answers_as_said))()
        except hypothesis.errors.Unsatisfiable:
            continue  # it takes nothing that could be wrong
        tested += 1
    assert tested > 10


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@io_route("/big/{key}")
async def with_big_default(key: str, limit: int = 2**64) -> int:
    """Say it."""
    return limit


@io_route("/odd/{key}", methods=["POST"], example=Odd())
async def with_odd_example(key: str, item: Item) -> None: ...


def test_the_document_never_stops_a_service(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Service(with_big_default, with_odd_example)) as url:
        paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert paths["/big/{key}"]["get"]["parameters"][1]["schema"]["default"] == 2**64
    assert paths["/odd/{key}"]["post"]["parameters"][0]["name"] == "key"
    assert "POST /odd/{key} is described by its path alone" in caplog.text


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    age: int


@io_route("/pets", methods=["POST"])
async def pets(pet: Cat | Dog) -> Cat | Dog | None:
    return pet


def test_a_union_is_described_alike_in_request_and_response() -> None:
    found = operation(pets, path="/pets", method="post")
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    assert schema["discriminator"]
    assert found["responses"]["200"]["content"]["application/json"]["schema"] == schema
