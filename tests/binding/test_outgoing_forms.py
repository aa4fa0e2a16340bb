"""outgoing_forms.py: what it writes, core/forms.py reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from tinysvc import Request, UploadFile
from tinysvc.binding.inputs import Input
from tinysvc.binding.outgoing_forms import WHOLE_BODY, Field, fields_of, form_body
from tinysvc.core.form_data import FormData
from tinysvc.core.headers import Headers


def upload(content: bytes, filename: str = "a.bin", content_type: str = "") -> UploadFile:
    made = UploadFile("file", filename, content_type)
    made.file.write(content)
    made.size = len(content)
    return made


def read(fields: list[Field]) -> tuple[FormData, Any]:
    content_type, body = form_body(fields)
    content = body if isinstance(body, bytes) else body()
    request = Request("POST", "/", headers=Headers([(b"content-type", content_type.encode())]), body=content)
    return asyncio.run(request.form()), body


def test_texts_are_urlencoded() -> None:
    form, _ = read([Field("a", "ü &="), Field("b", ""), Field("a", "2")])
    assert form.fields == {"a": ["ü &=", "2"], "b": [""]}


def test_json_and_files_are_parts() -> None:
    form, body = read(
        [Field('n"', b'{"x":1}'), Field("t", "é"), Field("f", upload(b"\0\r\n--", 'x"y.png', "image/png"))]
    )
    assert isinstance(body, bytes)
    assert form.get("t") == "é"
    assert next(iter(form.fields.values())) == ['{"x":1}']
    found = form.get("f")
    assert (found.filename, found.content_type, found.read()) == ('x"y.png', "image/png", b"\0\r\n--")


def test_big_files_are_read_piece_by_piece_and_more_than_once() -> None:
    file = upload(b"ab" * WHOLE_BODY)
    for _ in range(2):
        form, body = read([Field("f", file)])
        assert not isinstance(body, bytes)
        assert form.get("f").size == 2 * WHOLE_BODY
        assert form.get("f").content_type == "application/octet-stream"


def test_two_attempts_can_read_a_file_at_the_same_time() -> None:
    content = bytes(range(256)) * (2 * WHOLE_BODY // 256)
    _, body = form_body([Field("f", upload(content))])
    assert not isinstance(body, bytes)

    async def both() -> tuple[bytes, bytes]:
        found: tuple[list[bytes], list[bytes]] = [], []
        iterators = body(), body()
        for _ in range(100):
            for pieces, iterator in zip(found, iterators, strict=True):
                pieces.append(await anext(iterator, b""))
        return b"".join(found[0]), b"".join(found[1])

    one, other = asyncio.run(both())
    assert one == other
    assert content in one


@dataclass
class Thing:
    name: str
    sizes: list[int]
    photo: UploadFile | None = None
    more: int | None = None


def whole(value: object, kind: Any = Thing) -> list[Field]:
    return list(fields_of(Input("thing", "whole form", "", kind, None), value))


def test_whole_form_has_a_part_for_each_field() -> None:
    photo = upload(b"x")
    assert whole(Thing("n", [1], photo)) == [Field("name", "n"), Field("sizes", b"[1]"), Field("photo", photo)]


@pytest.mark.parametrize(("value", "texts"), [(None, []), ([1, 2], ["1", "2"]), (True, ["true"]), ("", [""])])
def test_field_has_a_text_for_each_value(value: object, texts: list[str]) -> None:
    assert list(fields_of(Input("a", "form", "b", int, None), value)) == [Field("b", text) for text in texts]


def test_list_of_files_is_a_part_for_each() -> None:
    files = [upload(b"1"), upload(b"2")]
    assert [each.content for each in fields_of(Input("a", "form", "b", list[UploadFile], None), files)] == files
