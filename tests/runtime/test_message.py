"""message.py: a message is an array of its fields, and nothing else is accepted in its place."""

from __future__ import annotations

import msgspec
import pytest

from tinysvc.runtime.message import Message


class Pair(Message):
    one: int
    other: str = ""


def test_message_is_an_array() -> None:
    assert msgspec.json.encode(Pair(1, "a")) == b'[1,"a"]'
    assert msgspec.json.decode(b"[1]", type=Pair) == Pair(1)


@pytest.mark.parametrize("document", [b'[1,"a",2]', b"[]", b'{"one":1}', b'["a"]'])
def test_any_other_form_is_refused(document: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(document, type=Pair)
