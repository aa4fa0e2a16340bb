"""cpu_endpoints.py: a worker's program, called in the process of the test."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import astuple

import batching_jobs
import faulty
from tinysvc import Request, Response
from tinysvc.core.errors import ConfigurationError, UnencodableResult
from tinysvc.core.requests import Peer
from tinysvc.models.artifact_version import ArtifactVersion
from tinysvc.pool.arena import BIG
from tinysvc.pool.program import JobFunction, Reply
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_messages import BatchMessage, RequestMessage, ResponseHead
from tinysvc.runtime.endpoint_parts import Endpoint
from tinysvc.service.routes import Batch

opened: list[str] = []


def weight() -> Iterator[int]:
    opened.append("opened")
    yield 3
    opened.append("closed")


def heavy(weight: int) -> Iterator[int]:
    yield weight
    raise OSError("cannot be closed")


def double(body: bytes, weight: int) -> Any:
    return {"size": len(body) * weight}


def whose(request: Request) -> Response:
    return Response([request.client, request.server, request.method, request.headers["x"]], 201, {"x-a": "b"})


@pytest.fixture
def handle() -> Iterator[JobFunction]:
    endpoints = [
        Endpoint(double, (), {"weight": weight}),
        Endpoint(whose, (), {}),
        Endpoint(faulty.cpu, ("number",), {}),
        Endpoint(faulty.stream, ("n",), {}),
        Endpoint(faulty.fault_http_error, (), {}),
    ]
    with CpuProgram(endpoints)() as handle:
        yield handle


def test_each_resource_is_closed_though_another_cannot_be() -> None:
    opened.clear()
    endpoints = [Endpoint(double, (), {"weight": weight, "heavy": heavy})]
    with pytest.raises(OSError, match="cannot be closed"), CpuProgram(endpoints)():
        pass
    assert opened == ["opened", "closed"]
    opened.clear()


def meta(endpoint: int, **path: str) -> RequestMessage:
    lines = [(b"x", b"y"), (b"x-add", b"1")]
    peer = Peer(["127.0.0.1", 1], "/a/socket", "http")  # a list, as it arrives
    return RequestMessage(endpoint, "POST", "/", "", path, lines, peer, "id", None)


def test_resource_is_opened_once(handle: JobFunction) -> None:
    assert handle(meta(0), b"ab") == Reply(ResponseHead(200, "application/json", []), b'{"size":6}')
    assert opened == ["opened"]


def test_resource_is_closed_with_its_program() -> None:
    with CpuProgram([Endpoint(double, (), {"weight": weight})])():
        pass
    assert opened[-1] == "closed"


def test_worker_has_the_whole_request(handle: JobFunction) -> None:
    reply = handle(meta(1), b"")
    assert reply.meta == ResponseHead(201, "application/json", [("x-a", "b")])
    assert orjson.loads(reply.body) == [["127.0.0.1", 1], "/a/socket", "POST", "y"]  # type: ignore[arg-type]


def test_wrong_requests_and_errors_get_a_response(handle: JobFunction) -> None:
    assert handle(meta(2, number="7"), b"").body == b'{"number":7}'
    assert handle(meta(2, number="x"), b"").meta.status == 422
    assert handle(meta(4), b"").meta == ResponseHead(409, "application/problem+json", [("x-why", "test")])


def test_generator_is_a_stream(handle: JobFunction) -> None:
    reply = handle(meta(3, n="2"), b"")
    assert reply.meta.content_type == "application/x-ndjson"
    assert list(reply.body) == [b'{"i":0}\n', b'{"i":1}\n']


def test_shared_resource_is_opened_once_before_all_others() -> None:
    program = CpuProgram([Endpoint(double, (), {"weight": weight}, frozenset({"weight"}))] * 2)
    del opened[:]
    with program.preload():
        for _ in range(2):
            with program() as handle:
                assert handle(meta(0), b"ab").body == b'{"size":6}'
        assert opened == ["opened"]
        assert pickle.loads(pickle.dumps(program))._shared == {}  # what is open stays in its process
    assert opened == ["opened", "closed"]
    with program() as handle:
        handle(meta(0), b"")
    assert opened == ["opened", "closed"] * 2


def test_worker_knows_id_and_route_of_the_request() -> None:
    with CpuProgram([Endpoint(batching_jobs.whoami, (), {}, path="/{a}")])() as handle:
        assert handle(meta(0), b"").body == b'["id","id","POST /{a}"]'


def test_big_bodies_and_results_are_not_copied() -> None:
    body = memoryview(bytes(BIG))
    with CpuProgram([Endpoint(batching_jobs.echo, (), {}), Endpoint(batching_jobs.copied, (), {})])() as handle:
        result = handle(meta(0), body).body
        assert isinstance(result, memoryview)
        assert result.obj is body.obj
        assert handle(meta(1), body).body == b'{"size":%d,"type":"bytes"}' % BIG


# Batches


def batch(function: Any, *bodies: bytes, **path: str) -> list[Any]:
    """(status, body) or the three texts of an error, for each."""
    resources = {"factor": batching_jobs.factor} if function is batching_jobs.score else {}
    del batching_jobs.calls[:]
    endpoint = Endpoint(function, tuple(path), resources, batch=Batch(), path="/b")
    metas = [meta(0, **path) for _ in bodies]
    with CpuProgram([endpoint])() as handle:
        reply = handle(BatchMessage(0, metas, [len(body) for body in bodies]), b"".join(bodies))
    answers, start = [], 0
    for part in reply.meta.parts:
        content = bytes(reply.body[start : start + part.length])  # type: ignore[index]
        answers.append(astuple(part.error) if part.error else (part.head.status, content))
        start += part.length
    assert start == len(reply.body)  # type: ignore[arg-type]
    return answers


def xs(*values: Any) -> list[bytes]:
    return [b'{"x":%s}' % str(value).encode() for value in values]


def test_batch_is_one_call_with_lists() -> None:
    got = batch(batching_jobs.score, *xs(1, 2, 3))
    assert got == [(200, b'{"y":%d,"of":3}' % y) for y in (11, 21, 31)]
    assert batching_jobs.calls == [3]


def test_request_that_does_not_bind_is_not_in_the_batch() -> None:
    good, bad, worse = batch(batching_jobs.score, *xs(1, '"a"'), b"{")
    assert good == (200, b'{"y":11,"of":1}')
    assert (bad[0], worse[0]) == (422, 400)
    assert batch(batching_jobs.score, b"{") == [worse]
    assert batching_jobs.calls == []


def test_exception_among_the_results_is_the_error_of_one_item() -> None:
    own, refused, unencodable, stream, good = batch(batching_jobs.picky, *xs(0, 1, 2, 3, 9))
    assert own[:3] == ("ZeroDivisionError", "zero", "ZeroDivisionError: zero")
    assert refused == (409, b'{"type":"about:blank","title":"Conflict","status":409,"detail":"one"}')
    assert "cannot be encoded: $ is a object" in unencodable[1]
    assert unencodable[2] == ""  # it is told once
    assert "cannot be a stream, but the result is an iterator; return a list" in stream[1]
    assert good == (200, b"9")
    assert batching_jobs.calls == [5]


def test_failed_batch_is_repeated_item_by_item() -> None:
    first, raised, last = batch(batching_jobs.picky, *xs(8, -1, 9))
    assert (first, last) == ((200, b"8"), (200, b"9"))
    assert raised[:2] == ("ValueError", "a negative one")
    assert "in picky" in raised[2]
    assert batching_jobs.calls == [3, 1, 1, 1]
    (alone,) = batch(batching_jobs.picky, *xs(-1))
    assert alone == raised
    assert batching_jobs.calls == [1]


@pytest.mark.parametrize(
    ("function", "came"),
    [(batching_jobs.too_few, "1 of them"), (batching_jobs.not_a_list, "a str"), (batching_jobs.a_set, "a set")],
)
def test_results_that_are_no_list_of_the_same_length_fail_for_all(function: Any, came: str) -> None:
    got = batch(function, *xs(1, 2))
    assert [error[1] for error in got] == [
        f"the handler was given a batch of 2 and must return a list of as many results, but returned {came}"
    ] * 2
    assert batching_jobs.calls in ([], [2])  # not called again


def test_array_is_a_list_of_results() -> None:
    assert batch(batching_jobs.array, *xs(1, 2)) == [(200, b"0.5"), (200, b"1.0")]


def test_error_in_post_init_fails_only_its_request() -> None:
    good, bad = batch(batching_jobs.odd, *xs(0, 1))
    assert good == (200, b"0")
    assert bad[:2] == ("RuntimeError", "an odd one")


@pytest.mark.parametrize("function", [batching_jobs.exhausted, batching_jobs.odd])
def test_memory_error_of_a_batch_reaches_the_worker(function: Any) -> None:
    with pytest.raises(MemoryError):
        batch(function, *xs(2, 3))


def test_batch_has_the_whole_requests() -> None:
    expected = (201, b'["POST","n","id,id","POST /b"]')
    assert batch(batching_jobs.whole_request, b"", b"", name="n") == [expected] * 2


@pytest.mark.parametrize("name", ["x-note", "content-type"])
def test_assigned_text_that_no_header_holds_is_named(name: str) -> None:
    with CpuProgram([Endpoint(batching_jobs.assigned, (), {})])() as handle:
        with pytest.raises(UnencodableResult, match=f"{name}.*holds '.ud800'"):
            handle(meta(0), name.encode())
        assert handle(meta(0), b"").meta == ResponseHead(200, "text/plain", [("x-note", "good")])


def test_assigned_text_that_no_header_holds_fails_its_own_request_of_a_batch() -> None:
    with CpuProgram([Endpoint(batching_jobs.all_assigned, (), {}, batch=Batch(2))])() as handle:
        reply = handle(BatchMessage(0, [meta(0), meta(0)], [0, 6]), b"x-note")
    good, bad = reply.meta.parts
    assert (good.head.status, good.error, bad.head) == (200, None, None)
    assert bad.error.type_name == "tinysvc.core.errors.UnencodableResult"


# Artifacts


def model_path(model: Path, other: Path | None) -> list[str]:
    return [model.name, str(other)]


def model_of(loaded: list[str]) -> Any:
    return loaded


def artifact_program(check: Any = None, **more: Any) -> CpuProgram:
    endpoint = Endpoint(
        model_of,
        (),
        {"loaded": model_path},
        artifacts={"loaded": {"model": "churn@production", "other": "words@3"}},
        checks={"loaded": check} if check else {},
        **more,
    )
    return CpuProgram([endpoint], {"churn@production": ArtifactVersion("churn", 8, "/copies/eight", "d8", {})})


def test_resource_gets_the_folder_of_its_artifact_and_none_for_one_that_does_not_exist() -> None:
    with artifact_program()() as handle:
        assert handle(meta(0), b"").body == b'["eight","None"]'


def test_response_names_the_version_of_its_worker() -> None:
    with artifact_program()() as handle:
        assert ("x-artifact", "churn@8") in handle(meta(0), b"").meta.headers


def test_program_travels_with_its_versions() -> None:
    assert pickle.loads(pickle.dumps(artifact_program())).artifacts["churn@production"].label == "churn@8"


def test_shared_resource_gets_its_artifact_before_the_workers_are_forked() -> None:
    program = artifact_program(shared=frozenset({"loaded"}))
    with program.preload(), program() as handle:
        assert handle(meta(0), b"").body == b'["eight","None"]'


def raises(value: object) -> None:
    raise LookupError("no weights")


def returns_nothing(value: object) -> None:
    assert value


@pytest.mark.parametrize(
    ("check", "error"),
    [
        (lambda value: value == [], "the check of the resource loaded refuses it: .*<lambda> returned False"),
        (raises, "no weights"),
        (returns_nothing, ""),
        (bool, ""),
    ],
)
def test_check_refuses_a_resource(check: Any, error: str) -> None:
    expected = pytest.raises((ConfigurationError, LookupError), match=error) if error else nullcontext()
    for program in (artifact_program(check), artifact_program(check, shared=frozenset({"loaded"}))):
        with expected, program.preload(), program():
            pass
