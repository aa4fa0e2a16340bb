"""grpc_listener.py: a command that serves gRPC beside HTTP: one process, several, and under the reloader."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

import grpc
from commands import HELLO, Served, failed, served, tinysvc
from system import wait_until
from tinysvc import Response, Service, Settings, io_route
from tinysvc.server.grpc_listener import GrpcListener
from tinysvc.service.plan import plans_of

PATH = "/service.Service/Pid"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service.py").write_text(HELLO)
    return tmp_path


def address_of(server: Served) -> str:
    found = re.search(r"^gRPC at (\S+)$", "\n".join(server.lines), re.MULTILINE)
    assert found is not None
    return found[1]


def pid_by(address: str) -> int:
    """The pid of a worker, by a connection of its own."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        reply: Any = channel.unary_unary(PATH)(b"", timeout=20, wait_for_ready=True)
    assert reply[:1] == b"\x08"  # int64 value = 1
    return sum((byte & 127) << 7 * number for number, byte in enumerate(reply[1:]))


MODULES = """
@cpu_route("/modules")
def modules() -> str:
    import os, sys
    return " ".join([*sys.modules, str(os.getppid())])
"""


def test_one_process_serves_both_protocols(folder: Path) -> None:
    """Its workers have protobuf from their forkserver, and no grpcio; a second server cannot have its port."""
    (folder / "service.py").write_text(HELLO + MODULES)
    with served(*tinysvc("service.py", "--grpc", "127.0.0.1:0", "--cpu-workers", "1"), cwd=folder) as server:
        address = address_of(server)
        assert "google.protobuf.message_factory" in server.get("/modules").text.split()  # before any RPC
        assert pid_by(address) == server.get("/pid").json()
        with grpc.insecure_channel(address) as channel:
            modules = channel.unary_unary("/service.Service/Modules")(b"", timeout=20).decode(errors="replace").split()
        assert not {"grpc", "tinysvc.grpc.rpc_server", "asyncio"} & set(modules)
        forkserver = modules[-1]
        assert "cygrpc" not in Path(f"/proc/{forkserver}/maps").read_text()
        status, errors = failed(*tinysvc("service.py", "--grpc", address), cwd=folder)
        assert status == 3
        assert "another process does; stop it or choose --grpc" in errors
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


EARLY = """
@io_route("/early")
async def early() -> str:
    import sys
    return " ".join(sys.modules)
"""


def test_libraries_are_imported_for_the_first_call_that_needs_them(folder: Path) -> None:
    """The server imports protobuf for its first message, and those of health and reflection for reflection."""
    (folder / "service.py").write_text(HELLO + EARLY)
    later = {"google.protobuf.descriptor_pool", "google.protobuf.message_factory"}
    for_reflection = {"google.protobuf.descriptor_pb2", "grpc_health.v1.health_pb2", "grpc_reflection.v1alpha._async"}
    command = tinysvc("service.py", "--grpc", "127.0.0.1:0", "--cpu-workers", "1")
    with served(*command, cwd=folder) as server, grpc.insecure_channel(address_of(server)) as channel:

        def imported() -> set[str]:
            return set(httpx.get(f"{server.url}/early", timeout=20).text.split())

        def called(method: str) -> bytes:
            reply: bytes = channel.unary_unary(method)(b"", timeout=20)
            return reply

        assert called("/grpc.health.v1.Health/Check") == b"\x08\x01"  # SERVING
        assert pid_by(address_of(server))  # a worker writes this message
        with pytest.raises(grpc.RpcError):
            called("/service.Service/None")
        assert not (later | for_reflection) & imported()
        called("/service.Service/Early")
        assert later <= imported()
        assert not for_reflection & imported()
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert b"service.Service" in b"".join(reflect(iter([b"\x3a\x01x"]), timeout=20))  # list_services: "x"
        assert for_reflection <= imported()


def test_processes_share_the_port(folder: Path) -> None:
    arguments = ("--grpc", "127.0.0.1:0", "--workers", "2", "--cpu-workers", "2")
    with served(*tinysvc("service.py", *arguments), cwd=folder) as server:
        address = address_of(server)
        pids = set[int]()

        def both_have_served() -> bool:
            pids.add(pid_by(address))
            return len(pids) == 2

        wait_until(both_have_served, "both processes have served")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0


def test_unix_socket_stays_open_between_versions(folder: Path) -> None:
    path = folder / "rpc.sock"
    arguments = ("--grpc", f"unix:{path}", "--reload", "--cpu-workers", "1")
    with served(*tinysvc("service.py", *arguments), cwd=folder) as server:
        first = pid_by(f"unix:{path}")
        (folder / "service.py").write_text(HELLO + "\n# changed\n")
        wait_until(lambda: pid_by(f"unix:{path}") != first, "the new version serves")
        wait_until(lambda: not (Path("/proc") / str(first)).exists(), "the old version has ended")
        assert pid_by(f"unix:{path}") != first
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert not path.exists()


def test_service_without_grpc_imports_none_of_it(folder: Path) -> None:
    code = HELLO.replace('{"from": __name__}', '[name for name in __import__("sys").modules if "grpc" in name]')
    (folder / "service.py").write_text(code.replace("-> dict", "-> list"))
    with served(*tinysvc("service.py", "--cpu-workers", "1"), cwd=folder) as server:
        assert httpx.get(server.url, timeout=20).json() == []


def test_log_names_the_routes_of_http_alone(caplog: pytest.LogCaptureFixture) -> None:
    @io_route("/page")
    async def page() -> Response:
        return Response("x")

    with caplog.at_level("INFO", "tinysvc.grpc"):
        assert GrpcListener(Settings(grpc="0"), ()).messages_of(list(plans_of(Service(page)))) == {}
    assert caplog.messages == ["only HTTP serves /page (its result is a Response)"]


def test_missing_library_is_named(folder: Path) -> None:
    (folder / "grpc_reflection.py").write_text("raise ImportError('not here')")
    variables = {"PYTHONPATH": str(folder)}
    status, errors = failed(*tinysvc("service.py", "--grpc", "0"), cwd=folder, **variables)
    assert status == 3
    assert "gRPC needs the grpcio library" in errors
    assert "pip install 'tinysvc[grpc]'" in errors
