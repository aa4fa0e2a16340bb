"""sockets.py: the origins of listening sockets, and their cleanup."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from commands import HELLO, served
from tinysvc import Service, io_route
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.setting_values import SettingsError
from tinysvc.core.settings import Settings
from tinysvc.server.sockets import (
    grpc_sockets,
    listener_url,
    listening_sockets,
    metrics_line,
    metrics_sockets,
    rebound,
)
from tinysvc.testing import serving

pytestmark = pytest.mark.usefixtures("nothing_left")


def connect(listener: socket.socket) -> None:
    with socket.socket(listener.family) as client:
        client.settimeout(20)
        client.connect(listener.getsockname())
        listener.accept()[0].close()


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ("", ""),
        ("/metrics", ""),
        ("127.0.0.1:0", r"metrics at http://127\.0\.0\.1:[0-9]+/metrics\n"),
        ("unix:m.sock", r"metrics at unix:m\.sock/metrics\n"),
    ],
)
def test_metrics_have_sockets_of_their_own(
    metrics: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with metrics_sockets(Settings(metrics=metrics)) as sockets:
        assert re.fullmatch(line, metrics_line(sockets))


def test_port_of_metrics_is_checked() -> None:
    with pytest.raises(SettingsError, match="metrics: port takes a number from 0 to 65535, not 99999"):
        metrics_sockets(Settings(metrics="127.0.0.1:99999")).__enter__()


def test_tcp() -> None:
    with listening_sockets(Settings(port=0), {}) as (listener,):
        assert listener_url(listener, "http") == f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.listen()
        connect(listener)
    assert listener.fileno() == -1


def test_ipv6() -> None:
    try:
        with listening_sockets(Settings(host="::1", port=0), {}) as (listener,):
            assert listener_url(listener, "https") == f"https://[::1]:{listener.getsockname()[1]}"
    except ConfigurationError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize("reuse_port", [False, True])
def test_used_port_is_refused(reuse_port: bool) -> None:
    with listening_sockets(Settings(port=0), {}, reuse_port=reuse_port) as (first,):
        first.listen()
        port = first.getsockname()[1]
        says = rf"cannot listen on 127\.0\.0\.1:{port}: another process does; stop it or choose --port"
        with pytest.raises(ConfigurationError, match=says):
            listening_sockets(Settings(port=port), {}, reuse_port=reuse_port).__enter__()


@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_of_http_is_refused_for_grpc(reuse_port: bool) -> None:
    with listening_sockets(Settings(port=0), {}, reuse_port=reuse_port) as listeners:
        port = listeners[0].getsockname()[1]
        for place in (str(port), f"0.0.0.0:{port}"):
            with pytest.raises(
                ConfigurationError, match=r"^cannot listen on .*; (stop it or )?choose (another )?--grpc"
            ):
                grpc_sockets(Settings(grpc=place), listeners).__enter__()
        with grpc_sockets(Settings(grpc="0"), listeners) as (reserved,):
            assert reserved.getsockname()[1] != port


def test_invalid_address_is_refused() -> None:
    elsewhere = "cannot listen on 203.0.113.1:0: this machine has no such address; choose --host"
    for host, says in [("203.0.113.1", elsewhere), ("no.such.host.invalid", "no address of this")]:
        with pytest.raises(ConfigurationError, match=says):
            listening_sockets(Settings(host=host, port=0), {}).__enter__()


# A host with several addresses

FOUR, SIX = (socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0, 0, 0))
NOWHERE = (socket.AF_INET6, ("2001:db8::1", 0, 0, 0))


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[int, tuple[object, ...]]) -> None:
    """Let a host have these addresses, with the port that is asked for."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(family, socket.SOCK_STREAM, 6, "", (name, port, *rest)) for family, (name, _, *rest) in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def names_of(listeners: list[socket.socket]) -> list[str]:
    return [listener.getsockname()[0] for listener in listeners]


with_ipv6 = pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")


@with_ipv6
@pytest.mark.parametrize("reuse_port", [False, True])
def test_localhost_listens_on_both_families_on_one_port(monkeypatch: pytest.MonkeyPatch, reuse_port: bool) -> None:
    resolve_to(monkeypatch, SIX, FOUR, FOUR)  # /etc/hosts may have a line twice
    with listening_sockets(Settings(host="localhost", port=0), {}, reuse_port=reuse_port) as listeners:
        assert names_of(listeners) == ["::1", "127.0.0.1"]
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
        for listener in listeners:
            with rebound(listener) as another:
                assert another.getsockname() == listener.getsockname()
            listener.listen()
            connect(listener)


@with_ipv6
@pytest.mark.parametrize("reuse_port", [False, True])
def test_all_interfaces_of_both_families_share_one_port(monkeypatch: pytest.MonkeyPatch, reuse_port: bool) -> None:
    resolve_to(monkeypatch, (socket.AF_INET6, ("::", 0, 0, 0)), (socket.AF_INET, ("0.0.0.0", 0)))
    with listening_sockets(Settings(host="all", port=0), {}, reuse_port=reuse_port) as listeners:
        assert names_of(listeners) == ["::", "0.0.0.0"]
        with closing(rebound(listeners[0])) as another:
            assert another.getsockname() == listeners[0].getsockname()


def test_shared_socket_stays_non_blocking_for_the_process_that_accepts() -> None:
    """Else the event loop of that process blocks in accept, and its drain does not end."""
    with listening_sockets(Settings(port=0), {}) as (listener,):
        listener.setblocking(False)
        with closing(rebound(listener)) as another:
            assert another.getsockname() == listener.getsockname()
            assert not os.get_blocking(listener.fileno())
            assert not os.get_inheritable(another.fileno())


def test_missing_address_of_a_host_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, NOWHERE, FOUR)
    with listening_sockets(Settings(host="localhost", port=0), {}) as listeners:
        assert names_of(listeners) == ["127.0.0.1"]
    resolve_to(monkeypatch, NOWHERE, NOWHERE)
    with pytest.raises(
        ConfigurationError, match=r"cannot listen on \[2001:db8::1\]:0: this machine has no such address"
    ):
        listening_sockets(Settings(host="localhost", port=0), {}).__enter__()


def test_refused_address_family_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnlyIPv4(socket.socket):
        def __init__(self, family: int = -1, *more: Any, **named: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *more, **named)

    resolve_to(monkeypatch, SIX, FOUR)
    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    with listening_sockets(Settings(host="localhost", port=0), {}) as listeners:
        assert names_of(listeners) == ["127.0.0.1"]


@with_ipv6
@pytest.mark.parametrize("reuse_port", [False, True])
def test_port_used_in_one_family_is_refused(monkeypatch: pytest.MonkeyPatch, reuse_port: bool) -> None:
    """Else a part of the clients would reach another service."""
    with listening_sockets(Settings(host="::1", port=0), {}, reuse_port=reuse_port) as (other,):
        other.listen()
        port = other.getsockname()[1]
        resolve_to(monkeypatch, FOUR, SIX)
        with pytest.raises(ConfigurationError, match=rf"cannot listen on \[::1\]:{port}: another process does"):
            listening_sockets(Settings(host="localhost", port=port), {}, reuse_port=reuse_port).__enter__()


@with_ipv6
@pytest.mark.parametrize("reuse_port", [False, True])
def test_free_port_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch, reuse_port: bool) -> None:
    taken: list[socket.socket] = []

    class TakenAtFirst(socket.socket):
        """Another process takes the port of the first IPv4 socket for IPv6."""

        def bind(self, address: Any) -> None:
            super().bind(address)
            if self.family == socket.AF_INET and not taken:
                taken.append(socket.create_server(("::1", self.getsockname()[1]), family=socket.AF_INET6))

    resolve_to(monkeypatch, FOUR, SIX)
    with ExitStack() as stack:
        with monkeypatch.context() as patched:
            patched.setattr("tinysvc.server.sockets.socket.socket", TakenAtFirst)
            listeners = stack.enter_context(
                listening_sockets(Settings(host="localhost", port=0), {}, reuse_port=reuse_port)
            )
        stack.enter_context(taken[0])
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        assert taken[0].getsockname()[1] not in ports


def test_search_for_a_free_port_on_all_addresses_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class AlwaysTaken(socket.socket):
        def bind(self, address: Any) -> None:
            if address[1]:
                raise OSError(errno.EADDRINUSE, "Address already in use")
            super().bind(address)

    resolve_to(monkeypatch, FOUR, SIX)
    monkeypatch.setattr("tinysvc.server.sockets.socket.socket", AlwaysTaken)
    says = r"cannot listen on 127\.0\.0\.1:0, \[::1\]:0: no port was found that is free on each; choose --port"
    with pytest.raises(ConfigurationError, match=says):
        listening_sockets(Settings(host="localhost", port=0), {}).__enter__()


SERVES_LOCALHOST = """
import socket, sys
import tinysvc

def getaddrinfo(host, port, *args, **named):
    return [(socket.AF_INET, 1, 6, "", ("127.0.0.1", port)), (socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0))]

if __name__ == "__main__":
    socket.getaddrinfo = getaddrinfo  # whatever /etc/hosts says
    tinysvc.run("hello.py", host="localhost", port=0, cpu_workers=1, **eval(sys.argv[1]))
"""


@with_ipv6
@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"reload": True}], ids=["one", "workers", "reload"])
def test_localhost_is_served_and_announced_for_both_families(tmp_path: Path, options: dict[str, object]) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "serve.py").write_text(SERVES_LOCALHOST)
    with served("serve.py", repr(options), cwd=tmp_path) as server:
        listening = re.match(r"listening on http://127\.0\.0\.1:([0-9]+) and http://\[::1\]:([0-9]+)", server.lines[-1])
        assert listening is not None
        assert listening[1] == listening[2]
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{listening[1]}/", timeout=20).json() == {"from": "hello"}
        server.process.terminate()
        assert server.process.wait(30) == 0


@with_ipv6
def test_server_in_a_test_serves_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one() -> int:
        return 1

    resolve_to(monkeypatch, SIX, FOUR)
    with serving(Service(io_route("/")(one)), host="localhost") as url:
        monkeypatch.undo()
        assert url.startswith("http://[::1]:")
        for each in (url, url.replace("[::1]", "127.0.0.1")):
            assert httpx.get(each, timeout=20).json() == 1


def test_each_process_has_a_socket_of_its_own_on_a_shared_port() -> None:
    with (
        listening_sockets(Settings(port=0), {}, reuse_port=True) as (first,),
        closing(rebound(first)) as second,
        closing(rebound(first)) as third,
    ):
        assert first.getsockname() == second.getsockname() == third.getsockname()
        second.listen()
        for _ in range(5):  # the others do not listen, so that nobody is led to them
            connect(second)


# Unix sockets


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "socket"
    assert not (tmp_path / "socket").is_socket()


@pytest.mark.parametrize("mode", ["600", "660", "777"])
def test_unix_socket_has_its_mode_from_the_beginning(path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Bound(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(address)  # type: ignore[arg-type]
            seen.append(stat.S_IMODE(path.stat().st_mode))

    monkeypatch.setattr("tinysvc.server.sockets.socket.socket", Bound)
    umask = os.umask(0o22)
    try:
        with listening_sockets(Settings(unix=str(path), unix_mode=mode), {}) as (listener,):
            assert listener_url(listener, "http") == f"unix:{path}"
            assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    finally:
        assert os.umask(umask) == 0o22
    assert seen == [int(mode, 8)]


def test_unix_socket_without_a_mode_obeys_the_umask(path: Path) -> None:
    umask = os.umask(0o77)
    try:
        with listening_sockets(Settings(unix=str(path)), {}):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
    finally:
        os.umask(umask)


def test_only_a_stale_unix_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with listening_sockets(Settings(unix=str(path)), {}) as (listener,):
        listener.listen()
        connect(listener)
        with pytest.raises(ConfigurationError, match=f"{path}: another process does; stop it or choose another"):
            listening_sockets(Settings(unix=str(path)), {}).__enter__()
        connect(listener)


def test_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match=f"cannot listen on the Unix socket {path}: that is no socket"):
        listening_sockets(Settings(unix=str(path)), {}).__enter__()
    assert path.read_text() == "precious"


def test_unix_socket_of_a_successor_is_kept(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as successor:
        with listening_sockets(Settings(unix=str(path)), {}):
            path.unlink()
            successor.bind(str(path))
        assert path.is_socket()
    path.unlink()


def test_unix_socket_is_shared_by_processes(path: Path) -> None:
    with (
        listening_sockets(Settings(unix=str(path)), {}, reuse_port=True) as (first,),
        closing(rebound(first)) as second,
    ):
        second.listen()
        connect(first)


# What systemd hands over

PROGRAM = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from tinysvc.core.settings import Settings
from tinysvc.server.sockets import listening_sockets, listener_url
from tinysvc.core.errors import ConfigurationError
try:
    with listening_sockets(Settings(port=1), os.environ) as sockets:
        print(*[listener_url(each, "http") for each in sockets], *[each.get_inheritable() for each in sockets])
        print([name for name in os.environ if name.startswith("LISTEN_")])
except ConfigurationError as error:
    print(error)
"""


def handed_over(count: str, *descriptors: int) -> str:
    """What a process says that was started by systemd with these descriptors."""
    moves = "".join(f"os.dup2({fd}, {1000 + n});" for n, fd in enumerate(descriptors))
    moves += "".join(f"os.dup2({1000 + n}, {3 + n});" for n in range(len(descriptors)))
    program = f"import os; os.environ['LISTEN_FDS'] = {count!r}; {moves}\n{PROGRAM}"
    done = subprocess.run(
        [sys.executable, "-c", program], pass_fds=descriptors, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


def test_sockets_of_systemd_are_used_and_hidden_from_children(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "unix"))
        said = handed_over("2", tcp.fileno(), unix.fileno())
    assert said == f"http://127.0.0.1:{said.split()[0].rpartition(':')[2]} unix:{tmp_path / 'unix'} False False\n[]\n"
    assert (tmp_path / "unix").is_socket()  # systemd's, not ours to remove


def test_wrong_descriptor_of_systemd_is_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, open(os.devnull) as file:
        for each in (datagrams, file):
            assert "descriptor 3, which is no TCP or Unix stream socket" in handed_over("1", each.fileno())
    assert "LISTEN_FDS names descriptor 3, but it is not open" in handed_over("1")
    assert "LISTEN_FDS must be a number of sockets, as systemd sets it, not 'two'" in handed_over("two")


def test_sockets_for_another_process_are_not_used() -> None:
    environ: MutableMapping[str, str] = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "HOME": "/"}
    with listening_sockets(Settings(port=0), environ) as (listener,):
        assert listener.getsockname()[0] == "127.0.0.1"
    assert environ == {"HOME": "/"}


def test_processes_without_reuse_port_share_one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a sandbox knows no SO_REUSEPORT."""
    monkeypatch.setattr(socket, "SO_REUSEPORT", 12345)
    with listening_sockets(Settings(port=0), {}, reuse_port=True) as (listener,), rebound(listener) as another:
        assert another.getsockname() == listener.getsockname()
        listener.listen()
        with socket.create_connection(listener.getsockname()), another.accept()[0]:
            pass
