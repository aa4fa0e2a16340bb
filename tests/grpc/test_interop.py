"""Clients that others wrote: grpcio, grpclib, grpc-js, connect-es, grpcurl, connect-go and grpc-go."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpclib.client
import pytest
import trustme
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc
from grpclib.const import Status
from grpclib.exceptions import GRPCError

import grpc
import rpc_app
from client_tools import FOLDER, SEARCHED, tools
from commands import Served, served, tinysvc

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
        yield Interop(rpc_address(server), folder, messages, stubs, grpclib_stubs)


def rpc_address(server: Served) -> str:
    """Where a server listens for gRPC."""
    found = re.search(r"^gRPC at (\S+)$", "\n".join(server.lines), re.MULTILINE)
    assert found is not None
    return found[1]


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


def test_connect_with_nodes_http2(interop: Interop) -> None:
    (node,) = tools("node")
    if not (FOLDER / "node_modules" / "@connectrpc" / "connect-node").exists():
        pytest.skip("@connectrpc/connect-node not found; `make clients` installs it")
    descriptors = interop.folder / "rpc_app.descriptors"
    includes = Path(protoc.__file__).parent / "_proto"
    files = ["--include_imports", f"--descriptor_set_out={descriptors}", "rpc_app.proto"]
    assert protoc.main(["protoc", f"-I{interop.folder}", f"-I{includes}", *files]) == 0
    found = run(
        node,
        SUPPORT / "rpc_connect.mjs",
        descriptors,
        interop.address,
        variables={"NODE_PATH": FOLDER / "node_modules"},
    )
    info = "google.rpc.ErrorInfo"
    assert json.loads(found) == {
        "hello": "hello Adahello Ada",
        "item": "ab",
        "double": 8,
        "gzip": 200_000,
        "refused": {
            "code": "Unavailable",
            "message": "refused with 503",
            "details": [info, "google.rpc.RetryInfo"],
            "pushback": "3000",
        },
        "wrong": {
            "code": "InvalidArgument",
            "message": "item: is missing",
            "details": [info, "google.rpc.BadRequest"],
            "pushback": None,
        },
        "late": "DeadlineExceeded",
        "cancelled": "Canceled",
        "numbers": [0, 1, 2],
        "total": 3,
        "doubles": [2, 4],
    }


# Programs that read the types from the server


def run(*words: str | Path, exit_code: int = 0, variables: Mapping[str, str | Path] | None = None) -> str:
    """What a program prints."""
    environment = {**os.environ, "PATH": SEARCHED, **{name: str(value) for name, value in (variables or {}).items()}}
    ran = subprocess.run([*map(str, words)], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == exit_code, f"{words}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout + ran.stderr


def documents(text: str) -> list[object]:
    """The JSON documents of a text, one behind the other."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


@contextmanager
def with_certificates(folder: Path) -> Iterator[str]:
    """A server that wants a client's certificate; the files are in the folder."""
    authority = trustme.CA()
    issued, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    arguments = ("--grpc", "127.0.0.1:0", "--ssl-cert", f"{folder}/server.pem", "--ssl-ca", f"{folder}/ca.pem")
    with served(*tinysvc("rpc_app.py", *arguments), cwd=SUPPORT) as server:
        yield rpc_address(server)


CALLS: list[tuple[str, str, list[object]]] = [
    ("Hello", '{"name": "Ada", "times": 2}', [{"value": "hello Adahello Ada"}]),
    ("Double", '{"item": {"name": "c", "count": 4}}', [{"name": "c", "count": "8"}]),
    ("Numbers", '{"count": 3}', [{}, {"value": "1"}, {"value": "2"}]),
    ("Total", '{"items": {"count": 1}} {"items": {"count": 2}}', [{"value": "3"}]),
    ("Doubles", '{"numbers": 1} {"numbers": 2}', [{"value": "2"}, {"value": "4"}]),
]
"""Method, messages and replies."""

SERVICES = "grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection"


def test_grpcurl(interop: Interop) -> None:
    (grpcurl,) = tools("grpcurl")

    def call(method: str, data: str = "{}", *options: str, exit_code: int = 0) -> str:
        words = ("-plaintext", *options, "-d", data, interop.address, method)
        return run(grpcurl, *words, exit_code=exit_code)

    assert run(grpcurl, "-plaintext", interop.address, "list").split() == [*SERVICES.split(), "rpc_app.RpcApp"]
    described = run(grpcurl, "-plaintext", interop.address, "describe", "rpc_app.Item")
    assert "optional int64 count = 2;" in described
    for method, data, replies in CALLS:
        assert documents(call(f"rpc_app.RpcApp/{method}", data)) == replies
    assert '"ab"' in call("rpc_app.RpcApp/Item", '{"item": {"name": "a"}}', "-H", "x-user: b")
    assert '"Ada"' in call("rpc_app.RpcApp/Whoami", "{}", "-H", "authorization: Bearer right")
    wrong = call("rpc_app.RpcApp/Item", exit_code=64 + 3)
    assert "Code: InvalidArgument" in wrong
    assert '{"field":"item","description":"is missing"}' in wrong
    assert '"retry_delay":"3s"' in call("rpc_app.RpcApp/Refused", '{"status": 503}', exit_code=64 + 14)
    call("rpc_app.RpcApp/Stuck", "{}", "-max-time", "0.2", exit_code=64 + 4)
    for service in ("", "rpc_app.RpcApp"):
        assert '"SERVING"' in call("grpc.health.v1.Health/Check", json.dumps({"service": service}))
    assert call("grpc.health.v1.Health/List").count('"SERVING"') == 3


def test_grpcurl_with_certificates(tmp_path: Path) -> None:
    (grpcurl,) = tools("grpcurl")
    with with_certificates(tmp_path) as address:
        words = ("-cacert", f"{tmp_path}/ca.pem", "-d", '{"name": "Ada"}')
        own = ("-cert", f"{tmp_path}/client.pem", "-key", f"{tmp_path}/client.key")
        assert "hello Ada" in run(grpcurl, *words, *own, address, "rpc_app.RpcApp/Hello")
        run(grpcurl, *words, "-max-time", "20", address, "rpc_app.RpcApp/Hello", exit_code=1)


def test_buf_curl(interop: Interop) -> None:
    """Its client is connect-go."""
    (buf,) = tools("buf")
    words = (buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge")
    url = f"http://{interop.address}"
    assert run(*words, "--list-services", url).split() == [*SERVICES.split(), "rpc_app.RpcApp"]
    for number, (method, data, replies) in enumerate(CALLS):
        reflection = ("--reflect-protocol", "grpc-v1" if number else "grpc-v1alpha")
        assert documents(run(*words, *reflection, "-d", data, f"{url}/rpc_app.RpcApp/{method}")) == replies
    wrong = json.loads(run(*words, f"{url}/rpc_app.RpcApp/Item", exit_code=8 * 3))
    assert (wrong["code"], wrong["message"]) == ("invalid_argument", "item: is missing")
    assert [each["type"] for each in wrong["details"]] == ["google.rpc.ErrorInfo", "google.rpc.BadRequest"]


def test_buf_curl_with_certificates(tmp_path: Path) -> None:
    (buf,) = tools("buf")
    with with_certificates(tmp_path) as address:
        words = (buf, "curl", "--protocol", "grpc", "--cacert", tmp_path / "ca.pem", "-d", '{"name": "Ada"}')
        url = f"https://{address}/rpc_app.RpcApp/Hello"
        assert "hello Ada" in run(*words, "--cert", tmp_path / "client.pem", "--key", tmp_path / "client.key", url)
        run(*words, url, exit_code=1)


# Go


GO_LIBRARIES = Path("/usr/share/gocode")
"""Where Debian keeps the sources of Go's libraries."""

GO_PACKAGES = "golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protoc-gen-go protoc-gen-go-grpc"


@pytest.fixture(scope="module")
def go_client(interop: Interop) -> Path:
    """The program rpc_client.go with grpc-go, built from the sources that Debian has: no module is downloaded."""
    if not all((GO_LIBRARIES / "src" / "google.golang.org" / name).exists() for name in ("grpc", "protobuf")):
        pytest.skip(f"grpc-go not found; `apt-get install {GO_PACKAGES}` installs it")
    go, messages, stubs = tools("go", "protoc-gen-go", "protoc-gen-go-grpc")
    includes = Path(protoc.__file__).parent / "_proto"
    sources = interop.folder / "go" / "src"
    (sources / "client" / "main").mkdir(parents=True)
    shutil.copy(SUPPORT / "rpc_client.go", sources / "client" / "main" / "main.go")
    plugins = [f"--plugin=protoc-gen-go={messages}", f"--plugin=protoc-gen-go-grpc={stubs}"]
    outputs = [f"--{name}_out=Mrpc_app.proto=client/made:{sources}" for name in ("go", "go-grpc")]
    paths = [f"-I{interop.folder}", f"-I{includes}"]
    assert protoc.main(["protoc", *paths, *plugins, *outputs, "rpc_app.proto"]) == 0
    cache = {"GOCACHE": FOLDER / "go-cache"} if FOLDER.exists() else {}
    path = f"{interop.folder / 'go'}{os.pathsep}{GO_LIBRARIES}"
    variables: dict[str, str | Path] = {
        "GO111MODULE": "off",
        "GOPATH": path,
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        **cache,
    }
    run(go, "build", "-o", interop.folder / "go_client", "client/main", variables=variables)
    return interop.folder / "go_client"


@pytest.mark.timeout(400)  # a first build compiles Go's standard library
def test_grpc_go(go_client: Path, interop: Interop) -> None:
    assert json.loads(run(go_client, interop.address)) == {
        "hello": "hello Adahello Ada",
        "item": ["ab", 5],
        "double": 8,
        "gzip": 200_000,
        "token": "Ada",
        "no token": {
            "code": "Unauthenticated",
            "message": "This needs a token: 'Authorization: Bearer ...'.",
            "info": "401",
            "pushback": None,
        },
        "refused": {
            "code": "Unavailable",
            "message": "refused with 503",
            "info": "503",
            "retry": 3,
            "pushback": ["3000"],
        },
        "wrong": {
            "code": "InvalidArgument",
            "message": "item: is missing",
            "info": "422",
            "fault": "item: is missing",
            "pushback": None,
        },
        "late": "DeadlineExceeded",
        "cancelled": "Canceled",
        "afterwards": 8,
        "numbers": [0, 1, 2],
        "total": 13,
        "doubles": [2, 4, 6],
        "doubles end": True,
        "gives up": [1, {"code": "NotFound", "message": "no more", "info": "410", "pushback": None}],
        "endless": "Canceled",
        "health": "SERVING",
        "services": f"{SERVICES} rpc_app.RpcApp",
    }


@pytest.mark.timeout(400)
def test_grpc_go_with_certificates(go_client: Path, tmp_path: Path) -> None:
    with with_certificates(tmp_path) as address:
        authority, own = tmp_path / "ca.pem", (tmp_path / "client.pem", tmp_path / "client.key")
        assert json.loads(run(go_client, address, authority, *own)) == {"hello": "hello Ada"}
        assert json.loads(run(go_client, address, authority)) == {"hello": "Unavailable"}
