"""messages.py: results as messages, with a codec of JSON."""

from __future__ import annotations

import pytest

from json_codec import JsonCodec
from tinysvc import Response
from tinysvc.core.errors import UnencodableResult
from tinysvc.core.responses import MESSAGE
from tinysvc.runtime.messages import Messages, message_encoder, whole_encoder

WHOLE, STREAM = Messages(JsonCodec()), Messages(JsonCodec(), streams=True)


def test_result_is_one_message() -> None:
    response = message_encoder(WHOLE)({"a": 1})
    assert (response.status, response.content_type, response.content) == (200, MESSAGE, b'result {"a":1}')


def test_response_gives_headers_to_the_message() -> None:
    given = Response([1], headers={"x-a": "b"})
    response = message_encoder(WHOLE)(given)
    assert (response.content, list(response.headers)) == (b"result [1]", [("x-a", "b")])
    assert list(given.headers) == [("x-a", "b")]


@pytest.mark.parametrize("messages", [WHOLE, STREAM])
def test_error_response_stays_as_it_is(messages: Messages) -> None:
    response = message_encoder(messages)(Response("no", 404))
    assert (response.status, response.content, response.content_type) == (404, b"no", "text/plain; charset=utf-8")


def test_result_that_is_no_response_is_its_message() -> None:
    encode = whole_encoder(WHOLE.codec.encode_result)
    assert encode(None) == b"result null"
    assert isinstance(encode(Response(1)), Response)


def test_each_result_of_a_function_that_returns_several_types_is_checked() -> None:
    encode = message_encoder(WHOLE)
    assert encode({"a": 1}).content == b'result {"a":1}'
    assert encode(Response({"a": 1}, headers={"x-a": "b"})).headers == [("x-a", "b")]
    with pytest.raises(UnencodableResult):
        encode(iter([1]))
    assert encode({"a": 2}).content == b'result {"a":2}'


def test_iterator_where_one_value_is_expected_is_refused() -> None:
    with pytest.raises(UnencodableResult, match="by its annotation it returns one value"):
        message_encoder(WHOLE)(iter([1]))


@pytest.mark.parametrize("items", [[1, 2], []])
def test_stream_of_messages(items: list[int]) -> None:
    expected = [b"item %d" % each for each in items]
    assert list(message_encoder(STREAM)(iter(items)).content) == expected
    response = message_encoder(STREAM)(Response(iter(items), headers={"x-a": "b"}))
    assert (list(response.content), list(response.headers)) == (expected, [("x-a", "b")])


def test_error_before_the_first_item_is_raised_at_once() -> None:
    with pytest.raises(KeyError):
        message_encoder(STREAM)(map({"a": 1}.__getitem__, ["b"]))
