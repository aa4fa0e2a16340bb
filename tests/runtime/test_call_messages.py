"""call_messages.py, message.py: exceptions of a call arrive in the worker with all their facts."""

from __future__ import annotations

import msgspec
import pytest

from tinysvc import CallFailed, CallRefused, CallTimeout, CallUnavailable, ConfigurationError, HTTPError, TinysvcError
from tinysvc.runtime.call_messages import CallAnswer, CallQuestion, Failure, failure_from

FACTS = {"service": "shop", "replica": "http://a:1", "attempts": 3, "answered": 503}


@pytest.mark.parametrize("kind", [CallFailed, CallUnavailable, CallTimeout, CallRefused])
def test_failed_call_arrives_with_its_facts(kind: type[CallFailed]) -> None:
    sent = kind("the reason", **FACTS)  # type: ignore[arg-type]
    found = msgspec.msgpack.decode(msgspec.msgpack.encode(failure_from(sent)), type=Failure).error()
    assert type(found) is kind
    assert str(found) == str(sent)
    assert list(found.headers) == list(sent.headers)


def test_other_errors_keep_their_kind() -> None:
    http = failure_from(HTTPError(413, "too long")).error()
    assert (type(http), http.status, http.public) == (HTTPError, 413, "too long")
    assert isinstance(failure_from(ConfigurationError("where")).error(), ConfigurationError)
    assert str(failure_from(TinysvcError("odd")).error()) == "odd"


def test_question_of_another_form_is_refused() -> None:
    question = CallQuestion("m", "f", "GET", "/", [("a", "b")], None)
    encoded = msgspec.msgpack.encode(question)
    assert msgspec.msgpack.decode(encoded, type=CallQuestion) == question
    for wrong in ([*msgspec.msgpack.decode(encoded), 1], ["m"], {"module": "m"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(wrong), type=CallQuestion)
    assert CallAnswer(200, [], "", "", 1).failure is None
