"""Addresses of replicas, as the setting `services` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.setting_values import SettingsError

EXAMPLE = '"inference=http://a:8001,https://b training=unix:/run/t.sock"'

_PORTS = {"http": 80, "https": 443, "grpc": 0, "grpcs": 0}
"""The default ports; gRPC has none."""

UNIX, RPC_UNIX = "unix", "grpc+unix"
_SERVICE = re.compile(r"[A-Za-z0-9_.-]+")
_URL = re.compile(
    r"(?P<scheme>https?|grpcs?)://(?:\[(?P<literal>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?)\]|(?P<host>[A-Za-z0-9._-]+))"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[A-Za-z0-9._~!$&'()*+;=:@%-]*)*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where one replica, or several behind one name, can be reached.

    `path` is the prefix of every request's path, without a slash at its end; with `unix`, the path of the socket.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}" if self.is_unix else f"{self.scheme}://{self.authority}{self.path}"

    @property
    def is_unix(self) -> bool:
        """Whether it is the path of a Unix socket."""
        return self.scheme in (UNIX, RPC_UNIX)

    @property
    def is_rpc(self) -> bool:
        """Whether gRPC is spoken there, and not HTTP."""
        return self.scheme.startswith("grpc")

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        if self.is_unix:
            return "localhost"
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def prefix(self) -> str:
        """The beginning of every request's path."""
        return "" if self.is_unix else self.path


def parse_address(text: str) -> Address:
    """The address in a text such as `https://a:8001/prefix` or `unix:/run/t.sock`. SettingsError."""
    if text.startswith((f"{UNIX}:", f"{RPC_UNIX}:")):
        scheme, _, path = text.partition(":")
        if not path.startswith("/"):
            raise SettingsError(f"the address {text!r} must have an absolute path, as in {scheme}:/run/t.sock")
        return Address(scheme, path=path)
    match = _URL.fullmatch(text)
    if match is None:
        expected = "http://host:port, https://host:port, unix:/path, grpc://host:port or grpcs://host:port"
        raise SettingsError(f"an address is {expected}, without user, query or fragment, not {text!r}")
    scheme = match["scheme"].lower()
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port <= 65535:
        raise SettingsError(f"the address {text!r} must have a port from 1 to 65535")
    if scheme.startswith("grpc") and match["path"].strip("/"):
        raise SettingsError(f"the address {text!r} must have no path: a method of gRPC has its own")
    return Address(scheme, (match["literal"] or match["host"]).lower(), port, match["path"].rstrip("/"))


def parse_services(text: str) -> dict[str, tuple[Address, ...]]:
    """The replicas of each service in a text such as "inference=http://a:8001,http://b:8001 training=unix:/run/t.sock".

    Raises:
        SettingsError: The text is malformed; the sentence names the part and the remedy.
    """
    services: dict[str, tuple[Address, ...]] = {}
    for part in text.split():
        name, equals, addresses = part.partition("=")
        if not equals or not _SERVICE.fullmatch(name):
            raise SettingsError(f"services takes names with their addresses, as in {EXAMPLE}, not {part!r}")
        if name in services:
            raise SettingsError(f"services has {name} twice; write all its addresses behind one {name}=, with commas")
        try:
            replicas = tuple(parse_address(each) for each in addresses.split(","))
        except SettingsError as error:
            raise SettingsError(f"services: of {name}, {error}") from None
        if len(set(replicas)) < len(replicas):
            raise SettingsError(f"services names an address of {name} twice; leave one out")
        if len({each.is_rpc for each in replicas}) > 1:
            raise SettingsError(f"services: the addresses of {name} must be all of HTTP, or all of gRPC")
        services[name] = replicas
    return services
