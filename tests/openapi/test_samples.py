"""samples.py: sample requests succeed, and each kind of schema has a value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tinysvc.core.settings import Settings
from tinysvc.openapi.document import document
from tinysvc.openapi.samples import NoSample, SampleRequest, samples, value_of
from tinysvc.server.loading import load_service
from tinysvc.service.plan import plans_of
from tinysvc.testing import serving

SERVICE = """
import datetime, decimal, enum, uuid
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from tinysvc import Bearer, EventStream, Header, Service, UploadFile, WebSocket, cpu_route, io_resource, io_route

class Colour(enum.Enum):
    RED = "red"

@dataclass
class Node:
    name: Annotated[str, msgspec.Meta(min_length=6, max_length=8)]
    when: Annotated[datetime.datetime, msgspec.Meta(tz=True)]
    since: datetime.datetime
    opens: datetime.time
    price: decimal.Decimal
    identity: uuid.UUID
    colour: Colour
    size: Annotated[int, msgspec.Meta(ge=10, multiple_of=4)]
    share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    pair: tuple[int, str]
    words: Annotated[list[str], msgspec.Meta(min_length=2)]
    below: "Node | None"
    others: "list[Node]"
    note: str = "left out"

@cpu_route("/nodes", methods=["POST"])
def nodes(node: Node) -> Node:
    return node

@cpu_route("/bytes", methods=["POST"])
def octets(body: bytes) -> int:
    return len(body)

@cpu_route("/predict", methods=["POST"], example={"values": [1.5]})
def predict(document: dict) -> dict:
    return document

@io_route("/find/{number}/{word}")
async def find(
    number: int, word: str, limit: int, x_token: Annotated[str, Header()], colour: Colour = Colour.RED
) -> dict:
    return {"number": number, "word": word, "limit": limit, "token": x_token, "colour": colour.value}

@io_route("/ticks")
async def ticks() -> EventStream:
    raise NotImplementedError

@io_route("/talk")
async def talk(socket: WebSocket) -> None:
    raise NotImplementedError

@io_route("/photos", methods=["POST"])
async def photos(photo: UploadFile) -> str:
    raise NotImplementedError

@io_resource
async def user(token: Annotated[str, Bearer()]) -> str:
    return token

@io_route("/me")
async def me(user: str) -> str:
    return user
"""


def made_for(target: Path) -> tuple[dict[str, SampleRequest], dict[str, str]]:
    service = load_service(str(target))
    made, left_out = samples(document(service, list(plans_of(service)), Settings()))
    return {sample.route: sample for sample in made}, left_out


def test_sample_requests_succeed(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    made, _ = made_for(tmp_path / "shop.py")
    assert set(made) == {"POST /nodes", "POST /bytes", "POST /predict", "GET /find/{number}/{word}"}
    assert {sample.kind for sample in made.values()} == {"io", "cpu"}
    with serving(str(tmp_path / "shop.py")) as url:
        responses = {
            route: httpx.request(s.method, url + s.target, headers=s.headers, content=s.body)
            for route, s in made.items()
        }
    assert {route: response.status_code for route, response in responses.items()} == dict.fromkeys(made, 200)
    assert responses["POST /predict"].json() == {"values": [1.5]}
    assert responses["POST /bytes"].json() == 1024
    assert responses["GET /find/{number}/{word}"].json() == {
        "number": 1,
        "word": "text",
        "limit": 1,
        "token": "text",
        "colour": "red",
    }
    assert responses["POST /nodes"].json()["size"] == 12


def test_routes_without_a_sample_have_a_reason(tmp_path: Path) -> None:
    (tmp_path / "booth.py").write_text(SERVICE)
    _, left_out = made_for(tmp_path / "booth.py")
    assert left_out == {
        "GET /ticks": "its response is a stream",
        "GET /talk": "it is a WebSocket",
        "POST /photos": "its request body is a form (multipart/form-data)",
        "GET /me": "it needs credentials",
    }


def test_job_routes_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "works.py").write_text(
        "from tinysvc import job_route\n@job_route('/trainings')\ndef train() -> int:\n    return 1\n"
    )
    made, left_out = made_for(tmp_path / "works.py")
    assert (made, set(left_out.values()), len(left_out)) == ({}, {"it serves durable jobs, which would be kept"}, 6)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer", "minimum": 7}, 7),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": ["string", "null"], "format": "date"}, "2026-01-31"),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
        ({"examples": ["mine"], "type": "string"}, "mine"),
        ({"const": 3}, 3),
        ({"enum": ["a", "b"]}, "a"),
        ({"default": [1], "type": "array"}, [1]),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}, [1, "text"]),
        ({}, "text"),
    ],
)
def test_value_of_each_kind_of_schema(schema: dict[str, Any], value: object) -> None:
    assert value_of(schema, {}) == value
    assert type(value_of(schema, {})) is type(value)


def test_recursive_schemas_end() -> None:
    tree = {"$ref": "#/components/schemas/Tree"}
    schemas = {
        "Tree": {"type": "object", "required": ["below"], "properties": {"below": {"type": "array", "items": tree}}}
    }
    assert value_of(tree, {"components": {"schemas": schemas}}) == {"below": []}
    schemas["Tree"]["properties"] = {"below": tree}
    with pytest.raises(NoSample, match="Tree requires itself"):
        value_of(tree, {"components": {"schemas": schemas}})
