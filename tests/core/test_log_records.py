"""core/log_records.py: the fields of `extra=`, and the place that a record comes from."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from tinysvc.core.log_records import MAX_EXTRA, MAX_EXTRA_FIELDS, RecordSource, extra_of, json_object, source_here
from tinysvc.core.request_context import current_attempt, request_id, route_name


def record(**extra: Any) -> logging.LogRecord:
    return logging.getLogger("shop").makeRecord("shop", 30, "", 0, "text", (), None, extra=extra)


def test_extra_fields_are_those_of_the_author() -> None:
    assert extra_of(record()) == {}
    formatted = record(row=17, user="Ada")
    logging.Formatter("%(asctime)s %(message)s").format(formatted)
    assert extra_of(formatted) == {"row": 17, "user": "Ada"}


class NoText:
    def __str__(self) -> str:
        raise LookupError("no text")

    def __repr__(self) -> str:
        return "NoText"


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        ({1: [True, 1.5]}, {"1": [True, 1.5]}),
        ({"of": {1, 2}}, {"of": "{1, 2}"}),
        (2**70, str(2**70)),
        (float("nan"), None),
        ("\ud800", "\\ud800"),
        (b"bytes", "b'bytes'"),
        (NoText(), "<NoText without text: LookupError>"),
        (ENDLESS, "[[...]]"),
    ],
    ids=repr,
)
def test_any_value_has_a_json(value: Any, shown: Any) -> None:
    assert json.loads(json_object({"value": value, "next": 1})) == {"value": shown, "next": 1}


def test_extra_is_bounded() -> None:
    assert json_object({}) == b""
    whole = json_object({"big": ["x" * 100] * 1000, "small": 1})
    found = json.loads(whole)
    assert found["big"].endswith("... (103001 bytes)")
    assert found["small"] == 1
    for fields in ({f"n{i}": "x" * 1000 for i in range(1000)}, {"x" * 10**6: "y" * 10**6}, {"q": '"' * 10**6}):
        assert len(json_object(fields)) < 2 * MAX_EXTRA
    found = json.loads(json_object({f"n{i}": i for i in range(100)}))
    assert len(found) == MAX_EXTRA_FIELDS + 1
    assert found["extra_dropped"] == 100 - MAX_EXTRA_FIELDS


def test_place_names_all_that_is_known() -> None:
    assert RecordSource().place() == ""
    source = RecordSource(request_id="5f-1", route="job /train", trace_id="4b", job_id="a1", attempt=2)
    assert source.place() == "job /train, request 5f-1, trace 4b, job a1, attempt 2"


def test_source_here_reads_the_variables_of_the_request() -> None:
    tokens = [(v, v.set(text)) for v, text in ((request_id, "5f-1"), (route_name, "GET /"))]
    token = current_attempt.set(("a1", 2))
    try:
        source = source_here()
    finally:
        current_attempt.reset(token)
        for variable, each in tokens:
            variable.reset(each)
    assert (source.request_id, source.route, source.job_id, source.attempt) == ("5f-1", "GET /", "a1", 2)
