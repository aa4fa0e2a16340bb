"""models/pickle_opcodes.py: opcodes are followed as the unpickler would, without their effects."""

from __future__ import annotations

import io
import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest

from tinysvc.models import pickle_opcodes
from tinysvc.models.pickle_opcodes import is_pickle


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("true",)


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def found(content: bytes) -> bool:
    return is_pickle(io.BytesIO(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value", [Code(), [1, {"a": Code()}], OrderedDict(a=1), Path("a"), {1: [Path("b")] * 3}], ids=range(5)
)
def test_pickle_that_calls_something_is_found(value: object, protocol: int) -> None:
    assert found(pickle.dumps(value, protocol))
    assert found(pickle.dumps(value, protocol) + b"\0more")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_are_a_pickle_from_protocol_2_on(protocol: int) -> None:
    assert found(pickle.dumps({"a": [1, 2.0, "three", b"four", None, (True,), {5}]}, protocol))


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"I0x10\n0cos\nsystem\n(S'true'\ntR.",  # pickletools cannot read this number, the unpickler can
        b"S'bad\\escape\n0cos\nsystem\n(S'true'\ntR",
        b"(1cos\nsystem\n(S'true'\ntR this is no opcode",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x05cos\nsystem\n\xff",  # an import alone
        b"(((000N0cos\nsystem\n(tR.",
    ],
)
def test_hand_made_pickle_is_found(content: bytes) -> None:
    assert found(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"\x80",
        b"\x80\x02",
        b"\x80\x0acos\nsystem\n(tR.",
        b"\x80\x02\x00\x00\x00\x00\x00\x00{}",
        b"{}",
        b'{"weights": [1, 2]}',
        b"cat\ndog\nRabbit\n",
        b"background\ntench\ngoldfish\ngreat white shark\ntiger shark\n",
        b"id,name\nit,is\nR",
        b"color: red\nclass: b\nbread\n",
        b"iris\nsetosa\n.",
        b"0.",
        b"1.",
        b"a.",
        b"N" * 10,
        b"B\xff\xff\xff\xff",
        b"\x8e" + b"\xff" * 8,
        b"U\x05ab",
        b"tR.",
        b"(tRb.",
    ],
)
def test_other_content_is_not_found(content: bytes) -> None:
    assert not found(content)


def test_numbers_are_no_pickles() -> None:
    chance = random.Random(1)
    wrong = [content for content in (chance.randbytes(60) for _ in range(20_000)) if found(content)]
    assert wrong == []


def test_endless_content_counts_as_a_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_opcodes, "MAX_OPCODES", 1000)
    assert found(b"N0" * 1000)
