"""Clients that others wrote, from the .proto file that --proto prints: grpcio, grpclib and @grpc/grpc-js."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpclib.client
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import grpc
import rpc_app
from client_tools import FOLDER, tools
from commands import served, tinysvc

SUPPORT = Path(rpc_app.__file__).parent


class Interop(NamedTuple):
    """A server in a process of its own, and what protoc makes of its .proto file."""

    address: str
    folder: Path
    messages: Any
    stubs: Any
    grpclib_stubs: Any


@pytest.fixture(scope="module")
def interop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interop]:
    folder = tmp_path_factory.mktemp("interop")
    arguments = ("--grpc", "127.0.0.1:0", "--cpu-workers", "1")
    with served(*tinysvc("rpc_app.py", *arguments), cwd=SUPPORT) as server:
        printed = subprocess.run(
            [sys.executable, "-m", "tinysvc", "rpc_app.py", "--proto"], cwd=SUPPORT, capture_output=True, check=True
        )
        (folder / "rpc_app.proto").write_bytes(printed.stdout)
        plugin = Path(sys.executable).parent / "protoc-gen-grpclib_python"
        includes = Path(protoc.__file__).parent / "_proto"
        outputs = [f"--{name}={folder}" for name in ("python_out", "grpc_python_out", "grpclib_python_out")]
        files = [f"--plugin=protoc-gen-grpclib_python={plugin}", *outputs, "rpc_app.proto"]
        assert protoc.main(["protoc", f"-I{folder}", f"-I{includes}", *files]) == 0
        sys.path.insert(0, str(folder))
        try:
            names = ("rpc_app_pb2", "rpc_app_pb2_grpc", "rpc_app_grpc")
            messages, stubs, grpclib_stubs = map(importlib.import_module, names)
        finally:
            sys.path.remove(str(folder))
        found = re.search(r"^gRPC at (\S+)$", "\n".join(server.lines), re.MULTILINE)
        assert found is not None
        yield Interop(found[1], folder, messages, stubs, grpclib_stubs)


def test_grpcio_with_the_code_of_protoc(interop: Interop) -> None:
    made = interop.messages
    with grpc.insecure_channel(interop.address) as channel:
        stub = interop.stubs.RpcAppStub(channel)
        assert stub.Hello(made.HelloRequest(name="Ada", times=2), timeout=20).value == "hello Adahello Ada"
        request = made.ItemRequest(item=made.Item(name="a", count=4))
        assert stub.Item(request, metadata=[("x-user", "b")], timeout=20) == made.Item(name="ab", count=5)
        assert stub.Double(made.DoubleRequest(item=made.Item(name="c")), timeout=20) == made.Item(name="c", count=2)
        assert [each.value for each in stub.Numbers(made.NumbersRequest(count=3), timeout=20)] == [0, 1, 2]
        items = [made.TotalRequest(items=made.Item(count=number)) for number in (1, 2)]
        assert stub.Total(iter(items), timeout=20).value == 3
        numbers = [made.DoublesRequest(numbers=number) for number in (1, 2)]
        assert [each.value for each in stub.Doubles(iter(numbers), timeout=20)] == [2, 4]
        with pytest.raises(grpc.RpcError) as caught:
            stub.Item(made.ItemRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError) as caught:
            stub.Stuck(made.StuckRequest(name="grpcio"), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_probe_of_the_health(interop: Interop) -> None:
    """The protocol of grpc_health_probe and of Kubernetes."""
    with grpc.insecure_channel(interop.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "rpc_app.RpcApp"):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=20)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_client_that_knows_only_the_reflection(interop: Interop) -> None:
    with grpc.insecure_channel(interop.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert "rpc_app.RpcApp" in database.get_services()
        pool = DescriptorPool(database)
        method = pool.FindServiceByName("rpc_app.RpcApp").FindMethodByName("Hello")
        request = GetMessageClass(method.input_type)(name="Ada")
        reply = channel.unary_unary("/rpc_app.RpcApp/Hello")(request.SerializeToString(), timeout=20)
        assert GetMessageClass(method.output_type).FromString(reply).value == "hello Ada"


def test_grpclib_which_has_an_http2_of_its_own(interop: Interop) -> None:
    made = interop.messages
    host, _, port = interop.address.rpartition(":")

    async def calls() -> None:
        async with grpclib.client.Channel(host, int(port)) as channel, asyncio.timeout(20):
            stub = interop.grpclib_stubs.RpcAppStub(channel)
            assert (await stub.Hello(made.HelloRequest(name="Ada"))).value == "hello Ada"
            request = made.ItemRequest(item=made.Item(name="a", count=4))
            assert await stub.Item(request, metadata={"x-user": "b"}) == made.Item(name="ab", count=5)
            assert await stub.Double(made.DoubleRequest(item=made.Item(name="c"))) == made.Item(name="c", count=2)
            assert [each.value for each in await stub.Numbers(made.NumbersRequest(count=3))] == [0, 1, 2]
            items = [made.TotalRequest(items=made.Item(count=number)) for number in (1, 2)]
            assert (await stub.Total(items)).value == 3
            numbers = [made.DoublesRequest(numbers=number) for number in (1, 2)]
            assert [each.value for each in await stub.Doubles(numbers)] == [2, 4]
            with pytest.raises(GRPCError) as caught:
                await stub.Refused(made.RefusedRequest(status=503))
            assert (caught.value.status, caught.value.message) == (Status.UNAVAILABLE, "refused with 503")
            with pytest.raises(asyncio.TimeoutError):
                await stub.Stuck(made.StuckRequest(name="grpclib"), timeout=0.2)

    asyncio.run(calls())


def test_grpc_js(interop: Interop) -> None:
    (node,) = tools("node")
    if not (FOLDER / "node_modules" / "@grpc" / "proto-loader").exists():
        pytest.skip("@grpc/grpc-js not found; `make clients` installs it")
    ran = subprocess.run(
        [node, str(SUPPORT / "rpc_client.js"), str(interop.folder / "rpc_app.proto"), interop.address],
        env={**os.environ, "NODE_PATH": str(FOLDER / "node_modules")},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {
        "hello": {"value": "hello Adahello Ada"},
        "item": {"name": "ab", "count": 5, "_count": "count"},
        "double": {"name": "c", "count": 8, "_count": "count"},
        "refused": {"code": 14, "message": "refused with 503", "pushback": ["3000"]},
        "wrong": {"code": 3, "message": "item: is missing", "pushback": []},
        "late": {"code": 4, "message": "", "pushback": []},
        "token": {"value": "Ada"},
        "numbers": [{"value": 0}, {"value": 1}, {"value": 2}],
        "pieces": [{"name": "", "count": number, "_count": "count"} for number in (0, 1)],
        "total": {"value": 3},
        "doubles": [{"value": 2}, {"value": 4}],
    }


def test_grpcurl(interop: Interop) -> None:
    if (program := shutil.which("grpcurl")) is None:
        pytest.skip("grpcurl not found")
    arguments = ["-plaintext", "-d", '{"name": "Ada"}', interop.address, "rpc_app.RpcApp/Hello"]
    ran = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=50, check=True)
    assert json.loads(ran.stdout) == {"value": "hello Ada"}
