"""requests.py: parameters, bodies and security of an operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from openapi_cases import Model, described, operation, put_order, tenant, user
from tinysvc import (
    ApiKey,
    Bearer,
    Form,
    Request,
    UploadFile,
    io_route,
)


def test_request_is_described_with_that_of_resources() -> None:
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
        "schema": {"type": "integer", "format": "int64"},
    }
    assert parameters["header", "x-tenant"]["required"]
    assert parameters["query", "sort"]["description"] == "Which way."
    assert parameters["query", "sort"]["schema"] == {"enum": ["down", "up"], "default": "up"}
    assert parameters["query", "many"]["schema"] == {
        "type": "array",
        "items": {"type": "integer", "format": "int64"},
        "default": [],
    }
    assert found["requestBody"] == {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}, "example": {}}},
        "required": True,
    }
    assert found["security"] == [{"bearer": []}]


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


def test_content_types_of_forms_files_and_bytes() -> None:
    paths = described(fields, files, whole, raw)["paths"]
    content = {path: paths[path]["post"]["requestBody"]["content"] for path in paths}
    assert set(content["/fields"]) == {"multipart/form-data", "application/x-www-form-urlencoded"}
    assert content["/fields"]["multipart/form-data"]["schema"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "format": "int64", "default": 3}},
        "required": ["name"],
    }
    assert set(content["/files"]) == set(content["/whole"]) == {"multipart/form-data"}
    photos = content["/files"]["multipart/form-data"]["schema"]["properties"]["photos"]
    assert photos == {"type": "array", "items": {"type": "string", "format": "binary"}}
    assert content["/whole"]["multipart/form-data"]["schema"] == {"$ref": "#/components/schemas/Upload"}
    assert content["/raw"] == {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@io_route("/pydantic", methods=["POST"])
async def pydantic_model(model: Model) -> Model:
    return model


def test_pydantic_models_are_described() -> None:
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


def test_optional_key_beside_a_required_one() -> None:
    found = described(one_key)["paths"]["/one-key"]["get"]
    assert found["security"] == [{"bearer": [], "x-key": []}, {"bearer": []}]


def test_optional_keys_allow_no_credentials() -> None:
    found = described(keys)
    assert found["components"]["securitySchemes"] == {
        "x-key": {"type": "apiKey", "in": "header", "name": "x-key"},
        "k": {"type": "apiKey", "in": "query", "name": "k"},
    }
    assert found["paths"]["/keys"]["get"]["security"] == [{"x-key": [], "k": []}, {}]
    assert [each["name"] for each in found["paths"]["/keys"]["get"]["parameters"]] == ["q"]


@io_route("/upload", methods=["GET", "POST"])
async def upload(request: Request) -> int:
    return len(await request.body())


def test_handler_that_takes_the_request_may_read_a_body() -> None:
    operations = described(upload)["paths"]["/upload"]
    binary = {"type": "string", "format": "binary"}
    body = {"content": {"application/octet-stream": {"schema": binary}}, "required": False}
    assert operations["post"]["requestBody"] == body
    assert "requestBody" not in operations["get"]
