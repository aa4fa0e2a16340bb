"""Listening sockets and their URLs.

A socket is bound here; the server listens on it later, once everything is ready. It comes from systemd if the process
was started by socket activation (sd_listen_fds(3)), otherwise from `unix`, or from `host` and `port`. A host with
several addresses, as "localhost" often has, gets a socket for each.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ..core.errors import ConfigurationError
from ..core.setting_values import SettingsError
from ..core.settings import GRPC_PLACE, METRICS_PLACE, Settings

log = logging.getLogger("tinysvc")

RELOADER = "_TINYSVC_RELOADER"
"""The variable with the descriptor of the link over which a reloader gives a server process its sockets."""

FIRST_INHERITED = 3
"""The first descriptor of systemd (SD_LISTEN_FDS_START)."""

ATTEMPTS = 20
"""Attempts to find a port that is free on all addresses of the host."""

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""Errors for an address, or a family of addresses, that this machine does not have."""

METRICS_PATH = "/metrics"
"""The path of metrics on a port of their own: Prometheus asks for it unless it is told another one."""

Address = tuple[Any, ...]


@contextmanager
def listening_sockets(
    settings: Settings, environ: MutableMapping[str, str], *, reuse_port: bool = False, option: str = "--port"
) -> Iterator[list[socket.socket]]:
    """The sockets to accept on, bound; they are closed at the end. ConfigurationError if an address cannot be had.

    `reuse_port`: more processes will bind the same address, each by `rebound`. `option`: how users choose the port.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in _inherited(environ)]
        if sockets:
            log.info("listening on sockets of systemd: %s", ", ".join(listener_url(each, "http") for each in sockets))
        elif settings.unix:
            sockets = [stack.enter_context(_unix_socket(settings.unix, settings.unix_mode))]
        else:
            sockets = [stack.enter_context(each) for each in _tcp_sockets(settings, reuse_port, option)]
        yield sockets


@contextmanager
def metrics_sockets(settings: Settings, *, reuse_port: bool = False) -> Iterator[list[socket.socket]]:
    """The sockets of metrics on a port of their own, or on a Unix socket; none if they are a page of the service."""
    place = METRICS_PLACE.fullmatch(settings.metrics)
    if place is None or place["path"]:
        yield []
        return
    own = {"unix": place["unix"]} if place["unix"] else {"host": place["host"].strip("[]"), "port": int(place["port"])}
    try:
        with listening_sockets(Settings(**own), {}, reuse_port=reuse_port, option="--metrics") as sockets:
            yield sockets
    except SettingsError as error:
        raise SettingsError(f"metrics: {error}") from None


@contextmanager
def grpc_sockets(settings: Settings, listeners: Sequence[socket.socket]) -> Iterator[list[socket.socket]]:
    """Sockets that reserve the address of gRPC; none for a Unix socket, or without `grpc`. They never listen.

    grpcio binds sockets of its own to their addresses, as the ports are shared (SO_REUSEPORT). ConfigurationError if
    `listeners`, those of HTTP, have the address: the two would get each other's connections.
    """
    place = GRPC_PLACE.fullmatch(settings.grpc)
    if place is None or place["unix"]:
        yield []
        return
    own = Settings(host=(place["host"] or settings.host).strip("[]"), port=int(place["port"]))
    try:
        with listening_sockets(own, {}, reuse_port=True, option="--grpc") as sockets:
            for each in sockets:
                if any(_share_address(each, other) for other in listeners):
                    address = _in_words(each.getsockname())
                    raise ConfigurationError(f"cannot listen on {address} for gRPC: HTTP does; choose another --grpc")
            yield sockets
    except SettingsError as error:
        raise SettingsError(f"grpc: {error}") from None


def _share_address(one: socket.socket, other: socket.socket) -> bool:
    if socket.AF_UNIX in (one.family, other.family):
        return False
    (host, port, *_), (other_host, other_port, *_) = one.getsockname(), other.getsockname()
    return port == other_port and (
        host == other_host or any(ip_address(each).is_unspecified for each in (host, other_host))
    )


def socket_addresses(sockets: Sequence[socket.socket]) -> list[str]:
    """As in "127.0.0.1:50051" and "[::1]:50051"."""
    return [listener_url(each, "http").removeprefix("http://") for each in sockets]


def grpc_line(addresses: Sequence[str]) -> str:
    """The line that names the addresses of gRPC; "" without one."""
    return f"gRPC at {' and '.join(addresses)}\n" if addresses else ""


def metrics_line(listeners: Sequence[socket.socket]) -> str:
    """The line that names the URLs of metrics on a port of their own; "" without one."""
    urls = [f"{listener_url(listener, 'http')}{METRICS_PATH}" for listener in listeners]
    return f"metrics at {' and '.join(urls)}\n" if urls else ""


def listener_url(listener: socket.socket, scheme: str) -> str:
    """As in "http://127.0.0.1:8000", "https://[::1]:8443" or "unix:/run/service.sock"."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name if isinstance(name, str) else name.decode(errors='replace')}"
    host = f"[{name[0]}]" if listener.family == socket.AF_INET6 else name[0]
    return f"{scheme}://{host}:{name[1]}"


def rebound(listener: socket.socket) -> socket.socket:
    """A socket on the same address for one more process; the same socket where the kernel cannot share a port."""
    if listener.family == socket.AF_UNIX or not _shares_port(listener):
        # Not `listener.dup()`: it sets the socket to blocking, also for the processes that accept from it already.
        return socket.socket(listener.family, listener.type, listener.proto, os.dup(listener.fileno()))
    another = socket.socket(listener.family, listener.type, listener.proto)
    try:
        _share_port(another)
        if another.family == socket.AF_INET6:
            only = listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            another.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        another.bind(listener.getsockname())
    except BaseException:
        another.close()
        raise
    return another


def _share_port(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with suppress(OSError):  # refused in some sandboxes: all processes then accept from one socket
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _shares_port(listener: socket.socket) -> bool:
    try:
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    except OSError:
        return False


# TCP


def _tcp_sockets(settings: Settings, reuse_port: bool, option: str) -> list[socket.socket]:
    """A socket for each address of the host, on one port: "localhost" is 127.0.0.1 for some clients, ::1 for others."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise ConfigurationError(f"{settings.host!r} is no address of this machine: {why}") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for _ in range(ATTEMPTS):
        if sockets := _bound_to_all(addresses, settings.port, reuse_port, option):
            return sockets
    names = ", ".join(_in_words(address) for _, address in addresses)
    raise ConfigurationError(f"cannot listen on {names}: no port was found that is free on each; choose {option}")


def _bound_to_all(
    addresses: Sequence[tuple[int, Address]], port: int, reuse_port: bool, option: str
) -> list[socket.socket]:
    """The sockets; none if `port` is 0 and the port that the first address got is taken on another address.

    An address that the system does not know, as ::1 without IPv6, is left out beside one that it does.
    """
    refused: list[ConfigurationError] = []
    with ExitStack() as stack:
        bound: list[socket.socket] = []
        for family, (host, _, *rest) in addresses:
            address = (host, bound[0].getsockname()[1] if bound else port, *rest)
            try:
                bound.append(stack.enter_context(_bound(family, address, reuse_port, len(addresses) == 1)))
            except OSError as error:
                if error.errno == errno.EADDRINUSE and bound and not port:
                    return []
                refused.append(ConfigurationError(cannot_bind(error, address, option)))
                if error.errno not in NOT_HERE:
                    raise refused[-1] from None
        if not bound:
            raise refused[0]
        stack.pop_all()
        return bound


def _bound(family: int, address: Address, reuse_port: bool, alone: bool) -> socket.socket:
    """A bound socket. An IPv6 socket beside others does not take IPv4, which "::" would do."""
    if reuse_port and address[1]:
        _refuse_taken_port(family, address, alone)
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if reuse_port:
            _share_port(listener)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_tcp(listener, address, alone)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_tcp(listener: socket.socket, address: Address, alone: bool) -> None:
    if listener.family == socket.AF_INET6 and not alone:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)


def _refuse_taken_port(family: int, address: Address, alone: bool) -> None:
    """Refuse a shared port in use: two services of one user would get each other's requests."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_tcp(probe, address, alone)


def _in_words(address: Address) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"


def cannot_bind(error: OSError, address: Address, option: str = "--port") -> str:
    """The message for an address that cannot be bound, with the remedy."""
    where = _in_words(address)
    if error.errno == errno.EADDRINUSE:
        return f"cannot listen on {where}: another process does; stop it or choose {option} (0 takes a free one)"
    if error.errno == errno.EACCES:
        return f"cannot listen on {where}: not permitted; choose {option} above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {where}: this machine has no such address; choose --host (0.0.0.0 takes all)"
    return f"cannot listen on {where}: {error.strerror}"


# Unix


@contextmanager
def _unix_socket(path: str, mode: str) -> Iterator[socket.socket]:
    """A Unix socket at `path`. A socket without a listener is replaced; a live socket or another file is not."""
    maker = os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            if Path(path).is_socket():
                _refuse_live_socket(path)
                os.unlink(path)
            elif os.path.lexists(path):
                raise ConfigurationError(
                    f"cannot listen on the Unix socket {path}: that is no socket; choose another path"
                )
            _bind(listener, path, mode)
            made = os.stat(path)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on the Unix socket {path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            if os.getpid() == maker:
                _unlink(path, made)


def _bind(listener: socket.socket, path: str, mode: str) -> None:
    """Bind with the final permissions: at no moment may other users connect."""
    if not mode:
        listener.bind(path)
        return
    before = os.umask(0o777 & ~int(mode, 8))
    try:
        listener.bind(path)
    finally:
        os.umask(before)


def _unlink(path: str, made: os.stat_result) -> None:
    """Remove the file if it is still ours."""
    try:
        if os.path.samestat(os.stat(path), made):
            os.unlink(path)
    except OSError:
        pass  # another process has removed it


def _refuse_live_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)  # a timeout means a full queue, so it has an owner
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
        except (TimeoutError, BlockingIOError):
            pass
    raise ConfigurationError(
        f"cannot listen on the Unix socket {path}: another process does; stop it or choose another"
    )


# Sockets of systemd


def _inherited(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd has opened for this process. Its variables are removed: children must not use them."""
    given = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()):
        return []
    count = given["LISTEN_FDS"]
    if not (count.isascii() and count.isdecimal()):
        raise ConfigurationError(f"LISTEN_FDS must be a number of sockets, as systemd sets it, not {count!r}")
    return [_inherited_socket(FIRST_INHERITED + number) for number in range(int(count))]


def _inherited_socket(descriptor: int) -> socket.socket:
    try:
        is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        raise ConfigurationError(f"LISTEN_FDS names descriptor {descriptor}, but it is not open") from None
    if is_socket:
        listener = socket.socket(fileno=descriptor)
        listener.set_inheritable(False)
        if listener.type == socket.SOCK_STREAM and listener.family in _FAMILIES:
            return listener
        listener.detach()
    raise ConfigurationError(
        f"LISTEN_FDS names descriptor {descriptor}, which is no TCP or Unix stream socket; use ListenStream="
    )


_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
