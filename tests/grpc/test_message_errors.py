"""The errors of messages."""

from __future__ import annotations

from tinysvc.core.errors import BindingError
from tinysvc.grpc.message_errors import BadMessage


def test_bad_message_is_answered_like_a_request_that_does_not_bind() -> None:
    error = BadMessage([("order.count", "Expected `int` >= 1")])
    assert isinstance(error, BindingError)
    assert error.problem()["errors"] == [{"place": "order.count", "detail": "Expected `int` >= 1"}]
