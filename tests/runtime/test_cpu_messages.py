"""cpu_messages.py: each message arrives as it was sent, and no other form does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tinysvc.core.requests import Peer
from tinysvc.pool.frames import ErrorText, JobHead, Result, RunProgram, encode, job_decoder, worker_decoder
from tinysvc.runtime.cpu_messages import (
    MESSAGE_TYPES,
    BatchMessage,
    BatchPart,
    BatchReply,
    CallMessage,
    CallReply,
    RequestMessage,
    ResponseHead,
)

HEADERS = [(b"accept", b"*/*"), (b"x-latin", b"\xe4")]


def request(client: Any = "/run/y.sock", resources: bytes | None = None) -> RequestMessage:
    peer = Peer(client, "/run/x.sock", "http", "shop.example", "/shop")
    return RequestMessage(3, "POST", "/a%20b", "c=d", {"x": "ä"}, HEADERS, peer, "id-1", resources)


@pytest.mark.parametrize(
    "message",
    [
        request(),
        request(None, b"pickle"),
        request(b"\x00abstract"),
        CallMessage(0, [1, 2], "id-2", [(b"traceparent", b"t")], 1.5),
        BatchMessage(1, [request(), request()], [0, 7]),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_to_a_worker_arrives_as_it_was_sent(message: Any) -> None:
    head: JobHead = RunProgram(1, 0, message)
    assert job_decoder(MESSAGE_TYPES.job)(encode(head)) == head


REPLIES = [
    ResponseHead(200, None, [("x-a", "ä")]),
    CallReply([1, 2]),
    CallReply([], ErrorText("ValueError", "no", "Traceback")),
    BatchReply([BatchPart(1, ResponseHead(404, "text/plain", [])), BatchPart(0, None, ErrorText("E", "", ""))]),
]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: type(reply).__name__)
def test_reply_arrives_as_it_was_sent(reply: Any) -> None:
    assert worker_decoder(MESSAGE_TYPES.result)(encode(Result(1, reply))) == Result(1, reply)


@pytest.mark.parametrize(
    "meta",
    [
        None,
        [],
        [7, 200],
        [0, "200", None, []],
        [0, 200, None, [["x-a"]]],
        [0, 200, None, [["x-a", 1]]],
        [0, 200, None, [], "more"],
        [1, [1], ["ValueError"]],
        [2, [[1]]],
        [2, [["x", None, None]]],
        [2, [[-1, None, None]]],
    ],
    ids=repr,
)
def test_reply_of_another_form_is_refused(meta: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        worker_decoder(MESSAGE_TYPES.result)(encode([2, 1, meta, 0, 0]))
