"""rpc_access_log.py: the line of a call; test_rpc_metrics.py has those of a server."""

from __future__ import annotations

import logging
from typing import Any, cast

import pytest

import grpc
from tinysvc import Request
from tinysvc.core.headers import Headers
from tinysvc.core.log_records import SOURCE
from tinysvc.core.requests import Peer
from tinysvc.grpc.open_calls import CalledMethod, OpenCall
from tinysvc.grpc.rpc_access_log import log_call
from tinysvc.grpc.rpc_requests import header_lines

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class FakeMethod:
    name = "/shop.Shop/Buy"

    def request_of(self, call: OpenCall) -> Request:
        return Request(
            "POST", "/", headers=Headers(header_lines(call.metadata)), peer=Peer("", None, "http"), id="id-7"
        )


def ended_call(status: grpc.StatusCode) -> OpenCall:
    method = cast(CalledMethod, FakeMethod())
    return OpenCall(method, b"", None, (("traceparent", TRACE),), status=status)


def test_line_of_a_call(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tinysvc.access"):
        log_call(ended_call(grpc.StatusCode.NOT_FOUND))
    (record,) = caplog.records
    assert record.getMessage().startswith("unix RPC shop.Shop/Buy NOT_FOUND, ")
    source: Any = vars(record)[SOURCE]
    assert (source.request_id, source.trace_id) == ("id-7", "0af7651916cd43dd8448eb211c80319c")
    assert source.extra["status"] == "NOT_FOUND"


def test_nothing_is_logged_at_a_higher_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tinysvc.access"):
        call = ended_call(grpc.StatusCode.OK)
        log_call(call)
    assert caplog.records == []
    assert call.made_request is None
