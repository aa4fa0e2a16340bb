"""runtime/remote_requests.py: values as a request that binding reads again; results from bytes."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

import msgspec
import pytest

from tinysvc import UploadFile
from tinysvc.core.forms import parse_form
from tinysvc.runtime.remote_requests import body_of, headers_of, result_of, target_of, texts_of


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int
    name: str | msgspec.UnsetType = msgspec.UNSET


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (None, []),
        ("a b", ["a b"]),
        (7, ["7"]),
        (1.5, ["1.5"]),
        (True, ["true"]),
        (Colour.RED, ["red"]),
        (datetime.date(2026, 1, 2), ["2026-01-02"]),
        (uuid.UUID(int=1), ["00000000-0000-0000-0000-000000000001"]),
        (decimal.Decimal("1.50"), ["1.50"]),
        ([], []),
        ((1, Colour.RED, None, "b"), ["1", "red", "b"]),
        ({"a": 1}, ['{"a":1}']),
        ([{"a": 1}, 2], ['[{"a":1},2]']),
        (Point(1), ['{"x":1}']),
    ],
)
def test_texts_of_a_value(value: Any, texts: list[str]) -> None:
    assert texts_of(value) == texts


@pytest.mark.parametrize(
    ("template", "path", "query", "target"),
    [
        ("/", {}, {}, "/"),
        ("/items/{id}", {"id": 7}, {}, "/items/7"),
        ("/items/{item-id}.json", {"item-id": "a/b ü"}, {}, "/items/a%2Fb%20%C3%BC.json"),
        ("/files/{path:path}", {"path": "a/b?#"}, {}, "/files/a/b%3F%23"),
        ("/x", {}, {"a": "b&c=d", "many": [1, 2], "none": None, "no": []}, "/x?a=b%26c%3Dd&many=1&many=2"),
    ],
)
def test_target(template: str, path: Any, query: Any, target: str) -> None:
    assert target_of(template, path, query) == target


def test_headers() -> None:
    headers = headers_of({"X-Tag": "a", "x-many": [1, 2], "x-none": None}, {"sid": "s", "n": 1, "no": None}, "token")
    assert headers == [
        ("x-tag", "a"),
        ("x-many", "1"),
        ("x-many", "2"),
        ("cookie", "sid=s; n=1"),
        ("authorization", "Bearer token"),
    ]
    assert headers_of({}, {}, None) == []


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0b", "\u20ac"])
def test_value_that_no_header_can_hold_is_refused(value: str) -> None:
    places: list[Any] = [({"x": value}, {}, None), ({}, {"x": value}, None), ({}, {}, value)]
    for arguments in places:
        with pytest.raises(ValueError, match=r"(header|cookie) (x|bearer) is"):
            headers_of(*arguments)


@pytest.mark.parametrize(
    ("path", "says"),
    [({"id": ""}, "id"), ({"id": ".."}, "id"), ({"id": None}, "id"), ({"id": [1, 2]}, "id"), ({}, "id")],
)
def test_value_that_no_path_can_hold_is_refused(path: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        target_of("/items/{id}", path, {})


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ((msgspec.UNSET, None, None, False), ("", b"")),
        ((msgspec.UNSET, None, b"", False), ("", b"")),
        ((msgspec.UNSET, None, b"ab", False), ("application/octet-stream", b"ab")),
        ((None, None, None, False), ("application/json", b"null")),
        ((Point(1, "a"), None, None, False), ("application/json", b'{"x":1,"name":"a"}')),
        (
            (msgspec.UNSET, {"a": "b&", "n": [1, 2], "no": None}, None, False),
            ("application/x-www-form-urlencoded", b"a=b%26&n=1&n=2"),
        ),
    ],
)
def test_body(arguments: Any, content: tuple[str, bytes]) -> None:
    assert body_of(*arguments) == content


def multipart(form: dict[str, Any]) -> tuple[str, bytes]:
    kind, content = body_of(msgspec.UNSET, form, None, True)
    assert isinstance(content, bytes)
    return kind, content


def test_multipart_form_is_read_again() -> None:
    file = UploadFile("x", 'a "b".txt', "text/plain\r\nx: y")
    file.file.write(b"\r\n--content")
    file.size = file.file.tell()
    file.file.seek(3)  # it was read before
    kind, content = multipart({"a b": "ü", "n": [1, 2], "one": file, "two": [b"x", b""], "none": None})
    form = parse_form(kind, content)
    assert form.fields == {"a b": ["ü"], "n": ["1", "2"]}
    assert [(each.filename, each.content_type, each.read()) for each in form.files["one"]] == [
        ('a "b".txt', "text/plainx: y", b"\r\n--content")
    ]
    assert [(each.filename, each.content_type, each.read()) for each in form.files["two"]] == [
        ("two", "application/octet-stream", b"x"),
        ("two", "application/octet-stream", b""),
    ]


@pytest.mark.parametrize(
    ("annotation", "content_type", "content", "result"),
    [
        (None, "text/plain", b"ignored", None),
        (int | None, "", b"", None),
        (bytes, "application/json", b"{}", b"{}"),
        (bytes, "image/png", b"\x89", b"\x89"),
        (str, "text/plain; charset=utf-8", "ü".encode(), "ü"),
        (str, "application/json", b'"ab"', "ab"),
        (int, "application/json; charset=utf-8", b"7", 7),
        (int, "application/problem+json", b"7", 7),
        (int, "", b"7", 7),
        (Point, "application/json", b'{"x":1,"newer":2}', Point(1)),
        (Point | str | None, "application/json", b'{"x":1}', Point(1)),
        (Point | str | None, "text/plain", b"b", "b"),
        (Point | bytes, "image/png", b"\x89", b"\x89"),
        (Any, "application/json", b"[1]", [1]),
        (Any, "text/html", b"<p>", "<p>"),
        (Any, "image/png", b"\x89", b"\x89"),
        (list[datetime.date], "application/json", b'["2026-01-02"]', [datetime.date(2026, 1, 2)]),
    ],
)
def test_result(annotation: Any, content_type: str, content: bytes, result: Any) -> None:
    assert result_of(annotation, content_type, content) == result


@pytest.mark.parametrize(
    ("annotation", "content_type", "content", "says"),
    [
        (Point, "application/json", b'{"x":"a"}', r"Expected `int`, got `str` - at `\$\.x`"),
        (Point, "application/json", b"{}", "missing required field `x`"),
        (int, "application/json", b"", "truncated"),
        (str, "text/plain", b"\xff", "utf-8"),
        (int, "text/html", b"<p>", "malformed"),
    ],
)
def test_content_of_another_type_is_refused(annotation: Any, content_type: str, content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        result_of(annotation, content_type, content)
