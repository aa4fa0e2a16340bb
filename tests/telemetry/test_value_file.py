"""value_file.py: a worker's numbers in shared memory, and a worker that writes nonsense."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tinysvc.telemetry.value_file import SIZE, Definition, ValueReader, ValueWriter

COUNTER = Definition("counter", "sold", "Sold.", ["shop"], ["a"])
HISTOGRAM = Definition("histogram", "size", "Size.", [], [], "", [1.0, 10.0])


class Raw(tuple[Any, ...]):
    """A Definition of any form."""

    def length(self) -> int:
        return 1


@pytest.fixture
def descriptor() -> Iterator[int]:
    found = os.memfd_create("test")
    os.ftruncate(found, SIZE)
    yield found
    os.close(found)


def test_reader_sees_each_change(descriptor: int) -> None:
    reader = ValueReader(descriptor)
    assert list(reader.image().values()) == []
    writer = ValueWriter(descriptor)
    assert reader.pid == os.getpid()
    first = writer.add(COUNTER)
    assert first is not None
    writer.numbers[first] += 2
    assert list(reader.image().values()) == [(COUNTER, [2.0])]
    second = writer.add(HISTOGRAM)
    assert second is not None
    writer.numbers[second + 3] += 1
    writer.numbers[first] += 0.5
    assert list(reader.image().values()) == [(COUNTER, [2.5]), (HISTOGRAM, [0, 0, 0, 1])]
    reader.close()


def test_full_file_takes_no_further_series(descriptor: int) -> None:
    writer, reader = ValueWriter(descriptor), ValueReader(descriptor)
    count = 0
    while writer.add(Definition("counter", "sold", "Sold.", ["shop"], [str(count)])) is not None:
        count += 1
    assert count > 6000
    assert writer.add(Definition("counter", "b", "", ["shop"], ["x" * 20_000])) is None
    assert (len(list(reader.image().values())), reader.image().lost) == (count, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        Definition("counter", "a b", "Not a name.", [], []),
        Definition("counter", "a\n", "", [], []),
        Definition("counter", "sold", "", ["shop"], []),
        Definition("counter", "sold", "", ["a-b"], ["x"]),
        Definition("histogram", "size", "", [], [], "", [float("nan")]),
        Raw(("counter", "sold")),
        Raw(("teapot", "sold", "", [], [])),
        Raw(()),
    ],
)
def test_definition_of_the_wrong_form_ends_the_file(descriptor: int, wrong: Any) -> None:
    writer, reader = ValueWriter(descriptor), ValueReader(descriptor)
    writer.add(COUNTER)
    writer.add(wrong)
    writer.add(HISTOGRAM)
    assert [definition.name for definition, _ in list(reader.image().values())] == ["sold"]
    assert [definition.name for definition, _ in list(reader.image().values())] == ["sold"]


@pytest.mark.parametrize("position", [0, 64, 72, 100])
@pytest.mark.parametrize("word", [0, 1, 65, SIZE, SIZE + 1, 2**63, 2**64 - 1])
def test_bytes_of_any_kind_do_no_harm(descriptor: int, position: int, word: int) -> None:
    writer, reader = ValueWriter(descriptor), ValueReader(descriptor)
    for number in range(10):
        writer.add(Definition("counter", "sold", "", ["shop"], [str(number)]))
    os.pwrite(descriptor, struct.pack("Q", word), position)
    assert len(list(reader.image().values())) <= 10


def test_numbers_that_are_not_finite_become_0(descriptor: int) -> None:
    writer, reader = ValueWriter(descriptor), ValueReader(descriptor)
    first = writer.add(COUNTER)
    assert first is not None
    writer.numbers[first] = float("inf")
    assert list(reader.image().values()) == [(COUNTER, [0.0])]
