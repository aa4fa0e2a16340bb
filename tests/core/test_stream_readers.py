"""core/stream_readers.py: lines and events, in whichever pieces they arrive."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysvc import Event
from tinysvc.core import stream_readers
from tinysvc.core.stream_readers import EventReader, LineReader


def events_in(data: bytes, size: int) -> list[Event]:
    reader = EventReader()
    return [event for start in range(0, len(data), size) for event in reader.feed(data[start : start + size])]


def lines_in(data: bytes, size: int) -> list[bytes]:
    reader = LineReader()
    lines = [line for start in range(0, len(data), size) for line in reader.feed(data[start : start + size])]
    return [*lines, *filter(None, [reader.end()])]


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("data", "events"),
    [
        (b"data: a\n\n", [Event("a")]),
        (b"data: a\r\n\r\n", [Event("a")]),
        (b"data: a\r\rdata: b\r\r\n", [Event("a"), Event("b")]),
        (b"\xef\xbb\xbfdata:a\n\n", [Event("a")]),
        (b"event: tick\nid: 7\nretry: 30\ndata: {}\n\ndata: 2\n\n", [Event({}, "tick", "7", 30), Event(2)]),
        (b"data: a\ndata: b\ndata\n\n", [Event("a\nb\n")]),
        (b": keep-alive\n\nevent: none\n\nunknown: x\nretry: soon\nid: a\0b\ndata: x\n\n", [Event("x")]),
        (b"data: whole\n\ndata: begun", [Event("whole")]),
        ("data: \u00e9\u2028\n\n".encode(), [Event("\u00e9\u2028")]),
        (b"", []),
    ],
)  # fmt: skip
def test_events_are_read(data: bytes, events: list[Event], size: int) -> None:
    assert events_in(data, size) == events


data_of_events = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")).filter(lambda text: not is_json(text)),
    st.integers(-1000, 1000),
    st.lists(st.booleans()),
    st.dictionaries(st.text(max_size=3), st.none()),
)
one_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=5)


def is_json(text: str) -> bool:
    return EventReader().feed(f"data: {text}\n\n".encode()) != [Event(text)]


@given(
    st.lists(st.builds(Event, data_of_events, one_line, one_line, st.none() | st.integers(0, 99))), st.integers(1, 9)
)
def test_written_events_are_read_again(events: list[Event], size: int) -> None:
    assert events_in(b"".join(event.encode() for event in events), size) == events


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"1\n2\n", [b"1", b"2"]),
        (b"1\n\n \n2", [b"1", b"2"]),
        (b'{"a":"b"}\r\n[]\r\n', [b'{"a":"b"}\r', b"[]\r"]),  # a JSON decoder skips the CR
        (b"", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_lines_are_read(data: bytes, lines: list[bytes], size: int) -> None:
    assert lines_in(data, size) == lines


@pytest.mark.parametrize(
    ("reader", "pieces", "what"),
    [
        (LineReader, [b"0123456789", b"0"], "a line"),
        (EventReader, [b"data: 56789", b"0"], "an event"),
        (EventReader, [b"data: 6\n"] * 11, "an event"),
    ],
)
def test_endless_item_is_refused(reader: Any, pieces: list[bytes], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_readers, "MAX_ITEM", 10)
    feed = reader().feed
    with pytest.raises(ValueError, match=f"{what} of the stream has more than 10 bytes"):
        list(map(feed, pieces))
