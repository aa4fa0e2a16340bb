"""candidate_endpoints.py: both variants in a worker's program, called in the process of the test."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tinysvc import Response
from tinysvc.core.requests import Peer
from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.pool.program import JobFunction
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_messages import BatchMessage, RequestMessage, ShadowMessage, ShadowReply
from tinysvc.runtime.endpoint_parts import Candidate, Endpoint
from tinysvc.service.routes import Batch

SERVED, CANDIDATE = "churn@production", "churn@candidate"
opened: list[str] = []


def other() -> str:
    opened.append("other")
    return "other"


def model(folder: Path, other: str) -> str:
    opened.append(folder.name)
    return folder.name


def derived(model: str) -> str:
    opened.append(f"derived from {model}")
    return model


def predict(body: bytes, derived: str) -> dict[str, Any]:
    if body == b"bad":
        raise ValueError(derived)
    if body == b"much":
        raise MemoryError
    return {"by": derived, "size": len(body)}


def as_text(derived: str) -> str:
    return derived


def as_bytes(derived: str) -> bytes:
    return derived.encode()


def refuse(derived: str) -> Response:
    return Response("none", 404)


def as_stream(derived: str) -> Iterator[str]:
    yield derived


def batched(items: list[int], derived: str) -> list[Any]:
    return [f"{derived} {item}" for item in items]


def compare(served: Any, candidate: Any) -> float:
    compared.append((served, candidate))
    if served == "odd":
        return float("nan")
    if served == "lost":
        raise MemoryError
    return 0.5


compared: list[tuple[Any, Any]] = []
HANDLERS: list[Callable[..., Any]] = [predict, as_text, as_bytes, refuse, as_stream, batched]


def version_in(folder: str, number: int) -> ArtifactVersion:
    return ArtifactVersion("churn", number, f"/models/{folder}", f"digest of {folder}", {})


def program(*, has_candidate: bool = True) -> CpuProgram:
    resources: dict[str, Callable[..., Any]] = {"other": other, "model": model, "derived": derived}
    first = [
        Endpoint(
            each,
            (),
            resources,
            frozenset({"other", "model"}),
            Batch(size=4) if each is batched else None,
            artifacts={"model": {"folder": SERVED}},
        )
        for each in HANDLERS
    ]
    second = [
        each._replace(artifacts={"model": {"folder": CANDIDATE}}, candidate=Candidate(CANDIDATE, number, compare))
        for number, each in enumerate(first)
    ]
    versions = {SERVED: version_in("seven", 7)} | ({CANDIDATE: version_in("eight", 8)} if has_candidate else {})
    return CpuProgram([*first, *second], versions)


@pytest.fixture
def handle() -> Iterator[JobFunction]:
    opened.clear()
    compared.clear()
    with (both := program()).preload(), both() as run_job:
        yield run_job


def request(handler: Any, *, second: bool = True, query: str = "") -> RequestMessage:
    number = HANDLERS.index(handler) + len(HANDLERS) * second
    return RequestMessage(number, "POST", "/", query, {}, [], Peer(["127.0.0.1", 1], "/a", "http"), "id", None)


def shadow(
    handle: JobFunction,
    handler: Any,
    served: bytes,
    content_type: str | None = "application/json",
    coding: str = "",
    body: bytes = b"ab",
    query: str = "",
) -> ShadowReply:
    message = ShadowMessage(request(handler, query=query), len(body), content_type, coding)
    reply = handle(message, body + served)
    assert reply.body == b""
    assert type(reply.meta) is ShadowReply
    return reply.meta


def test_each_variant_has_its_version_and_shares_the_rest(handle: JobFunction) -> None:
    assert handle(request(predict, second=False), b"ab").body == b'{"by":"seven","size":2}'
    reply = handle(request(predict), b"ab")
    assert reply.body == b'{"by":"eight","size":2}'
    assert ("x-artifact", "churn@8") in reply.meta.headers
    assert sorted(opened) == ["derived from eight", "derived from seven", "eight", "other", "seven"]


def test_program_without_the_candidate_serves_with_the_first_version() -> None:
    opened.clear()
    with (one := program(has_candidate=False)).preload(), one() as handle:
        reply = handle(request(predict), b"ab")
        assert (reply.body, opened) == (b'{"by":"seven","size":2}', ["other", "seven", "derived from seven"])
        assert ("x-artifact", "churn@7") in reply.meta.headers
        assert shadow(handle, predict, b"{}") == ShadowReply(0.0, 0)


@pytest.mark.parametrize(
    ("handler", "served", "content_type", "values"),
    [
        (predict, b'{"a":1}', "application/json", ({"a": 1}, {"by": "eight", "size": 2})),
        (as_text, b"seven", "text/plain; charset=utf-8", ("seven", "eight")),
        (as_bytes, b"seven", None, (b"seven", b"eight")),
        (batched, b'"seven 3"', "application/problem+json", ("seven 3", "eight 3")),
    ],
)
def test_compare_gets_both_contents(
    handle: JobFunction, handler: Any, served: bytes, content_type: str | None, values: tuple[Any, Any]
) -> None:
    reply = shadow(handle, handler, served, content_type, query="items=3" if handler is batched else "")
    assert (reply.status, reply.difference, reply.failure) == (200, 0.5, None)
    assert reply.seconds > 0
    assert compared == [values]


def test_compressed_response_is_compared(handle: JobFunction) -> None:
    assert shadow(handle, predict, gzip.compress(b'{"a":1}'), coding="gzip").difference == 0.5
    assert compared[0][0] == {"a": 1}


def test_without_compare_only_the_time_is_measured() -> None:
    endpoints = [
        each._replace(candidate=each.candidate and each.candidate._replace(compare=None))
        for each in program().endpoints
    ]
    with CpuProgram(endpoints, program().artifacts)() as handle:
        reply = shadow(handle, predict, b"{}")
    assert (reply.status, reply.difference, reply.failure) == (200, None, None)


@pytest.mark.parametrize(
    ("handler", "options", "status", "type_name"),
    [
        (predict, {"body": b"bad"}, 500, "ValueError"),
        (as_stream, {}, 500, "tinysvc.core.errors.UnencodableResult"),
        (batched, {"query": "items=x"}, 422, ""),
        (refuse, {}, 404, ""),
        (predict, {"served": b'"odd"'}, 200, "ValueError"),
        (predict, {"served": b"no json"}, 200, "orjson.JSONDecodeError"),
    ],
)
def test_failure_is_reported(
    handle: JobFunction, handler: Any, options: dict[str, Any], status: int, type_name: str
) -> None:
    reply = shadow(handle, handler, **{"served": b"{}", **options})
    assert (reply.status, reply.difference) == (status, None)
    assert (reply.failure.type_name if reply.failure else "") == type_name


@pytest.mark.parametrize("options", [{"body": b"much"}, {"served": b'"lost"'}])
def test_memory_error_ends_the_worker(handle: JobFunction, options: dict[str, Any]) -> None:
    with pytest.raises(MemoryError):
        shadow(handle, predict, **{"served": b"{}", **options})


def test_candidate_of_a_batch_serves_batches(handle: JobFunction) -> None:
    message = BatchMessage(request(batched).endpoint, [request(batched, query="items=3")], [0])
    assert handle(message, b"").body == b"eight 3"
