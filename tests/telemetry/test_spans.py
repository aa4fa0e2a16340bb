"""spans.py: limits of spans, and the check of those that workers send."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tinysvc.telemetry.spans import MAX_ITEMS, MAX_TEXT, SpanEvent, SpanFields, SpanLink, checked_span, clean

TRACE, SPAN = "0" * 31 + "1", "0" * 15 + "1"


def span(**changes: Any) -> SpanFields:
    return msgspec.structs.replace(SpanFields("name", TRACE, SPAN, "", 0, 1, 2), **changes)


def sent(fields: SpanFields) -> Any:
    """The span as the server gets it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(fields))


def test_attributes_are_made_of_texts_and_numbers() -> None:
    given: dict[Any, Any] = {"a": True, "b": 1, "c": 1.5, "d": "x", "e": [1, "y"], "f": ("z",), "g": None}
    expected = {"a": True, "b": 1, "c": 1.5, "d": "x", "e": [1, "y"], "f": ["z"]}
    assert clean(given) == expected
    other: dict[Any, Any] = {"n": 2**63, "o": object, 3: b"x"}
    assert clean(other) == {"n": str(2**63), "o": str(object), "3": "b'x'"}
    assert clean(None) == {}


def test_attributes_are_bounded() -> None:
    found = clean({f"n{n}": "x" * (MAX_TEXT + 1) for n in range(MAX_ITEMS + 1)})
    assert len(found) == MAX_ITEMS
    assert set(map(len, found.values())) == {MAX_TEXT}
    assert len(clean({"many": [1] * (MAX_ITEMS + 1)})["many"]) == MAX_ITEMS


def test_lone_surrogate_is_escaped() -> None:
    assert clean({"a": "\udc80"}) == {"a": "\\udc80"}


def test_span_of_a_worker() -> None:
    fields = span(
        parent_id=SPAN,
        attributes={"a": [1]},
        events=[SpanEvent("e", 5, {"b": "c"})],
        links=[SpanLink(TRACE, SPAN, {"d": 1})],
        status=2,
        description="failed",
        scope="app",
    )
    assert checked_span(sent(fields)) == fields


def test_span_of_a_worker_is_cut() -> None:
    long = "x" * (MAX_TEXT + 1)
    events, links = [SpanEvent(long, 1, {"a": long})] * (MAX_ITEMS + 1), [SpanLink(TRACE, SPAN)] * (MAX_ITEMS + 1)
    found = checked_span(sent(span(name=long, scope=long, description=long, events=events, links=links)))
    assert {len(found.name), len(found.scope), len(found.description), len(found.events[0].name)} == {MAX_TEXT}
    assert (len(found.events), len(found.links)) == (MAX_ITEMS, MAX_ITEMS)
    assert found.events[0].attributes == {"a": long[:MAX_TEXT]}


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_id": "0" * 32},
        {"trace_id": TRACE[1:]},
        {"span_id": "g" * 16},
        {"parent_id": "1"},
        {"start": -1},
        {"end": 2**63},
        {"kind": 5},
        {"status": 3},
        {"links": [SpanLink("x", SPAN)]},
        {"links": [SpanLink(TRACE, "")]},
        {"events": [SpanEvent("e", -1)]},
    ],
)
def test_invalid_span_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"span|event"):
        checked_span(sent(span(**changes)))


@pytest.mark.parametrize("fields", [None, 1, [], ["name"], {"name": "x"}, ["n", TRACE, SPAN, "", 0, "1", 2]])
def test_other_value_is_refused(fields: object) -> None:
    with pytest.raises(ValueError, match=r"Expected|required"):
        checked_span(fields)
