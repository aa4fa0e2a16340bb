"""cli/client_stubs_operations.py: parameters, bodies, results and options of the functions."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.cli.client_stubs_names import RESERVED, Names
from tinysvc.cli.client_stubs_operations import Function, Operations, arguments
from tinysvc.cli.client_stubs_types import Types

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NULLABLE = {"anyOf": [INTEGER, {"type": "null"}]}
BINARY = {"type": "string", "format": "binary"}


def operations_of(document: dict[str, Any]) -> Operations:
    names = Names(RESERVED)
    return Operations(document, Types(document, names), names)


def function_of(operation: dict[str, Any], *, method: str = "get", path: str = "/x", **document: Any) -> Function:
    found = {"paths": {path: {method: {"operationId": "x", "responses": {}, **operation}}}, **document}
    (made,) = operations_of(found).functions()
    return made


def parameters_of(function: Function) -> list[tuple[str, str, str | None]]:
    return [(each.name, each.annotation, each.default) for each in function.parameters]


def parameter(name: str, place: str, schema: Any, *, required: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema, **more}


def response(media: str, schema: Any) -> dict[str, Any]:
    return {"responses": {"200": {"description": "", "content": {media: {"schema": schema}}}}}


# Parameters


def test_parameters_of_each_place() -> None:
    made = function_of(
        {
            "parameters": [
                parameter("item-id", "path", INTEGER),
                parameter("class", "query", STRING, required=True),
                parameter("X-Tag", "header", {**STRING, "default": "a"}),
                parameter("sid", "cookie", STRING),
                parameter("many", "query", {"type": "array", "items": INTEGER, "default": []}),
                parameter("maybe", "query", {"anyOf": [INTEGER, {"type": "null"}], "default": None}),
                parameter("day", "query", {"type": "string", "format": "date", "default": "2026-01-01"}),
                parameter("anything", "query", {}),
            ]
        },
        path="/items/{item-id}",
    )
    assert parameters_of(made) == [
        ("item_id", "int", None),
        ("class_", "str", None),
        ("x_tag", "str", '"a"'),
        ("sid", "str | None", "None"),
        ("many", "Sequence[int]", "()"),
        ("maybe", "int | None", "None"),
        ("day", "datetime.date | None", "None"),
        ("anything", "Any", "None"),
    ]
    assert arguments(made) == [
        ("path", ['"item-id": item_id']),
        ("query", ['"class": class_', '"many": many', '"maybe": maybe', '"day": day', '"anything": anything']),
        ("headers", ['"X-Tag": x_tag']),
        ("cookies", ['"sid": sid']),
    ]


def test_equal_names_are_told_apart_by_their_place() -> None:
    made = function_of({"parameters": [parameter("room", place, STRING) for place in ("query", "cookie", "header")]})
    assert [each.name for each in made.parameters] == ["room", "room_cookie", "room_header"]


def test_parameters_of_the_path_and_references() -> None:
    document = {
        "components": {"parameters": {"Page": parameter("page", "query", INTEGER)}},
        "paths": {
            "/x/{id}": {
                "parameters": [parameter("id", "path", STRING), {"$ref": "#/components/parameters/Page"}],
                "get": {"operationId": "x", "parameters": [parameter("id", "path", INTEGER)], "responses": {}},
            }
        },
    }
    (made,) = operations_of(document).functions()
    assert parameters_of(made) == [("id", "int", None), ("page", "int | None", "None")]


def test_path_parameter_with_slashes() -> None:
    slashes = parameter("path", "path", STRING) | {"x-tinysvc": {"takes_slashes": True}}
    assert function_of({"parameters": [slashes]}, path="/files/{path}").path == "/files/{path:path}"


def test_parameter_described_by_a_content_type() -> None:
    content = {"application/json": {"schema": {"type": "object", "additionalProperties": INTEGER}}}
    made = function_of({"parameters": [{"name": "filter", "in": "query", "required": True, "content": content}]})
    assert parameters_of(made) == [("filter", "dict[str, int]", None)]


def test_description_of_a_parameter() -> None:
    described = [
        parameter("a", "query", {**STRING, "description": "In."}),
        parameter("b", "query", STRING, description="Out."),
    ]
    assert [each.description for each in function_of({"parameters": described}).parameters] == ["In.", "Out."]


# Bodies


@pytest.mark.parametrize(
    ("content", "required", "parameters", "call"),
    [
        ({"application/json": {"schema": INTEGER}}, True, [("body", "int", None)], [("json", "body")]),
        (
            {"application/json": {"schema": INTEGER}},
            False,
            [("body", "int | msgspec.UnsetType", "msgspec.UNSET")],
            [("json", "body")],
        ),
        ({"application/json": {}}, False, [("body", "Any", "msgspec.UNSET")], [("json", "body")]),
        ({"application/json": {"schema": NULLABLE}}, False, [("body", "int | None", "None")], [("json", "body")]),
        ({"application/vnd.shop+json": {"schema": STRING}}, True, [("body", "str", None)], [("json", "body")]),
        ({"application/octet-stream": {"schema": BINARY}}, True, [("body", "bytes", None)], [("body", "body")]),
        ({"*/*": {}}, False, [("body", "bytes", 'b""')], [("body", "body")]),
        (
            {"image/png": {"schema": {}}},
            True,
            [("body", "bytes", None)],
            [("body", "body"), ("content_type", '"image/png"')],
        ),
        ({}, False, [], []),
    ],
)
def test_body(content: Any, required: bool, parameters: Any, call: Any) -> None:
    made = function_of({"requestBody": {"content": content, "required": required}}, method="post")
    assert parameters_of(made) == parameters
    assert arguments(made) == call


FORM = {
    "type": "object",
    "properties": {"name": STRING, "age": {**INTEGER, "default": 3}, "from": STRING},
    "required": ["name"],
}
FILES = {
    "type": "object",
    "properties": {
        "photo": BINARY,
        "more": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
        "maybe": {"anyOf": [BINARY, {"type": "null"}]},
        "title": STRING,
    },
    "required": ["photo", "title"],
}


def test_form_fields_are_parameters() -> None:
    content = {
        kind: {"schema": {"$ref": "#/components/schemas/Form"}}
        for kind in ("multipart/form-data", "application/x-www-form-urlencoded")
    }
    made = function_of({"requestBody": {"content": content}}, method="post", components={"schemas": {"Form": FORM}})
    assert parameters_of(made) == [("name", "str", None), ("age", "int", "3"), ("from_", "str | None", "None")]
    assert arguments(made) == [("form", ['"name": name', '"age": age', '"from": from_'])]


def test_uploads_are_bytes_or_files() -> None:
    made = function_of({"requestBody": {"content": {"multipart/form-data": {"schema": FILES}}}}, method="post")
    assert parameters_of(made) == [
        ("photo", "bytes | UploadFile", None),
        ("more", "Sequence[bytes | UploadFile] | None", "None"),
        ("maybe", "bytes | UploadFile | None", "None"),
        ("title", "str", None),
    ]
    assert arguments(made)[-1] == ("multipart", "True")


# Credentials


@pytest.mark.parametrize(
    ("scheme", "parameter", "call"),
    [
        ({"type": "http", "scheme": "bearer"}, "bearer", ("bearer", "bearer")),
        ({"type": "oauth2", "flows": {}}, "bearer", ("bearer", "bearer")),
        ({"type": "http", "scheme": "basic"}, "authorization", ("headers", ['"authorization": authorization'])),
        ({"type": "apiKey", "in": "header", "name": "X-Key"}, "x_key", ("headers", ['"X-Key": x_key'])),
        ({"type": "apiKey", "in": "query", "name": "key"}, "key", ("query", ['"key": key'])),
        ({"type": "apiKey", "in": "cookie", "name": "key"}, "key", ("cookies", ['"key": key'])),
    ],
)
@pytest.mark.parametrize("is_optional", [False, True])
def test_credentials_are_parameters(scheme: Any, parameter: str, call: Any, is_optional: bool) -> None:
    security: list[Any] = [{"one": []}, *([{}] if is_optional else [])]
    made = function_of({"security": security}, components={"securitySchemes": {"one": scheme}})
    assert parameters_of(made) == [(parameter, "str | None", "None") if is_optional else (parameter, "str", None)]
    assert arguments(made) == [call]


def test_security_of_the_document_holds_for_all_operations_but_those_without() -> None:
    schemes = {"securitySchemes": {"one": {"type": "http", "scheme": "Bearer"}, "tls": {"type": "mutualTLS"}}}
    more: Any = {"security": [{"one": [], "tls": []}], "components": schemes}
    assert parameters_of(function_of({}, **more)) == [("bearer", "str", None)]
    assert parameters_of(function_of({"security": []}, **more)) == []


# Results


@pytest.mark.parametrize(
    ("responses", "result", "is_stream"),
    [
        ({"204": {"description": ""}}, "None", False),
        ({}, "None", False),
        ({"default": {"description": ""}}, "Any", False),
        (response("application/json", INTEGER)["responses"], "int", False),
        (response("application/json", {})["responses"], "Any", False),
        (response("text/plain; charset=utf-8", STRING)["responses"], "str", False),
        (response("application/octet-stream", BINARY)["responses"], "bytes", False),
        (response("image/png", {})["responses"], "bytes", False),
        (response("*/*", BINARY)["responses"], "bytes", False),
        (response("*/*", {})["responses"], "Any", False),
        ({**response("application/json", INTEGER)["responses"], "204": {"description": ""}}, "int | None", False),
        (response("text/event-stream", {"type": "string", "contentSchema": {}})["responses"], "Event", True),
        (response("application/x-ndjson", {"type": "string", "contentSchema": INTEGER})["responses"], "int", True),
        ({"200": {"content": {"application/jsonl": {"itemSchema": STRING}}}, "204": {}}, "str", True),
        ({"201": {"$ref": "#/components/responses/Made"}}, "int", False),
    ],
)
def test_result(responses: Any, result: str, is_stream: bool) -> None:
    made = {"responses": {"Made": {"content": {"application/json": {"schema": INTEGER}}}}}
    function = function_of({"responses": responses}, components=made)
    assert (function.result.text, function.is_stream) == (result, is_stream)


def test_stream_of_text_is_marked_by_its_service() -> None:
    function = function_of({**response("text/plain", STRING), "x-tinysvc": {"stream": True}})
    assert (function.result.text, function.is_stream) == ("str", True)


def test_own_errors_are_listed() -> None:
    responses = {
        "404": {"description": "There is no such note."},
        "422": {"description": "The request has missing or invalid values: `errors` lists each of them."},
        "503": {"description": "Closed on Sundays."},
    }
    assert function_of({"responses": responses}).raises == [
        ("404", "There is no such note."),
        ("503", "Closed on Sundays."),
    ]


# Names and options


def test_names_of_functions() -> None:
    ids = {"/a": "read", "/b": "read", "/c": "class", "/d": "list", "/e": "getItem", "/f": "read item", "/g/{x}": None}
    paths = {path: {"get": {"responses": {}, **({"operationId": id_} if id_ else {})}} for path, id_ in ids.items()}
    names = [each.name for each in operations_of({"paths": paths}).functions()]
    assert names == ["read", "read_2", "class_", "list_", "getItem", "read_item", "get_g_x"]


def test_options_of_the_extension() -> None:
    extension = {"kind": "cpu", "idempotent": True, "hedge": 0.05, "timeout": 2, "cache": 60}
    options = {"idempotent": "True", "hedge": "0.05", "timeout": "2"}
    assert function_of({"x-tinysvc": extension}, method="post").options == options
    assert function_of({"x-tinysvc": {"idempotent": False}}).options == {"idempotent": "False"}
    assert function_of({"x-tinysvc": {"idempotent": True}}).options == {}  # a GET is, anyway
    assert function_of({"x-tinysvc": {"idempotent": "yes", "timeout": True}}).options == {}


def test_websocket_has_no_function() -> None:
    operations = operations_of({"paths": {"/chat": {"get": {"responses": {"101": {}, "426": {}}}}}})
    assert list(operations.functions()) == []
    assert operations.left_out == {"GET /chat": "it is a WebSocket"}


# Durable jobs

JOB = {"type": "object", "properties": {"id": STRING}, "required": ["id"]}


def job_operation(verb: str, **responses: Any) -> dict[str, Any]:
    names = ("Prefer", "Last-Event-ID", "Job-After")
    content: dict[str, Any] = {"application/json": {"schema": JOB}}
    if verb == "status":
        content["text/event-stream"] = {"schema": STRING}
    return {
        "x-tinysvc": {"kind": "job", "job": verb, "timeout": 3600},
        "parameters": [parameter(name, "header", STRING) for name in names],
        "responses": {"202" if verb == "submit" else "200": {"description": "", "content": content}, **responses},
    }


def test_submitted_job_is_the_result_of_its_function() -> None:
    result = response("application/json", {"type": "array", "items": INTEGER})["responses"]
    made = function_of(job_operation("submit", **result), method="post")
    assert (made.result.text, made.options) == ("XResult", {})
    assert [each.wire_name for each in made.parameters] == ["Last-Event-ID", "Job-After"]


def test_state_of_a_job_is_a_document_and_no_stream() -> None:
    made = function_of(job_operation("status", **{"204": {"description": "No change."}}))
    assert (made.result.text, made.is_stream) == ("XResult", False)
    assert [each.wire_name for each in made.parameters] == ["Prefer", "Job-After"]


def test_result_of_a_job_may_be_waited_for() -> None:
    made = function_of(job_operation("result"))
    assert [each.wire_name for each in made.parameters] == ["Prefer", "Last-Event-ID", "Job-After"]
