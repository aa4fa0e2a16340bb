"""The OpenAPI document that `--client` reads: of a service that is loaded but not served, of a URL, or of a file."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..client.client_tls import client_context
from ..core.settings import Settings, load_settings
from ..openapi.page import openapi_json
from ..server.loading import TargetError
from ..service.plan import plans_of
from ..service.service import Service

LARGEST = 64 << 20
"""Bytes of a document that is read; the documents of large interfaces have some megabytes."""

SECONDS = 10.0
"""Time for a running service to respond."""


def is_url(target: str) -> bool:
    """Whether the target is the address of a running service."""
    return target.startswith(("http://", "https://", "unix:"))


def document_of_service(load: Callable[[], Service], options: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a service that does not run."""
    service = load()
    settings = load_settings(options, os.environ, service.options)
    found: dict[str, Any] = json.loads(openapi_json(service, list(plans_of(service)), settings))
    return found


def document_in_file(path: str) -> dict[str, Any]:
    """The document in a JSON file.

    Raises:
        TargetError: The file cannot be read, or is no OpenAPI document.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TargetError(f"{path} cannot be read: {error.strerror}") from None
    return checked(content, path)


def document_at(url: str, options: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The document of a running service, and the address of the service without the document's path.

    Args:
        url: Such as http://127.0.0.1:8000, https://example.org/api/openapi.json or unix:/run/orders.sock.
        options: Options of the command line. Those of calls, such as `services_ca`, also hold for https here.

    Raises:
        TargetError: The service cannot be reached, or does not respond with an OpenAPI document.
    """
    address, place = _split(url)
    where = f"{address}{place}" if not address.startswith("unix:") else f"{place} of {address}"
    try:
        response, content = _get(address, place, load_settings(options, os.environ))
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        is_untrusted = isinstance(error, ssl.SSLCertVerificationError)
        hint = "name the authority of its certificate by --services-ca" if is_untrusted else "is the service running?"
        raise TargetError(f"{address} cannot be reached: {reason}; {hint}") from None
    if response.status != 200:
        raise TargetError(
            f"{where} responded with {response.status} {response.reason}, not with an OpenAPI document; "
            "name its URL if it has another one, and serve without --no-docs"
        )
    return checked(content, where), address


def _split(url: str) -> tuple[str, str]:
    """The address, and the path of the document: /openapi.json unless the URL ends with another .json file."""
    if url.startswith("unix:"):
        return "unix:" + url.removeprefix("unix:").removeprefix("//"), "/openapi.json"
    parts = urlsplit(url)
    if not parts.hostname:
        raise TargetError(f"{url} names no host; write it as in http://127.0.0.1:8000")
    path, _, name = parts.path.rpartition("/")
    if not name.endswith(".json"):
        path, name = parts.path.rstrip("/"), "openapi.json"
    origin = f"{parts.scheme}://{parts.netloc}"
    if name == "openapi.json":
        return f"{origin}{path}", f"/{name}"
    return origin, f"{path}/{name}"


def _get(address: str, path: str, settings: Settings) -> tuple[http.client.HTTPResponse, bytes]:
    connection, prefix = _connection(address, settings)
    try:
        connection.request("GET", f"{prefix}{path}", headers={"accept": "application/json"})
        response = connection.getresponse()
        content = response.read(LARGEST + 1)
    finally:
        connection.close()
    if len(content) > LARGEST:
        raise TargetError(f"the document of {address} has more than {LARGEST:,} bytes")
    return response, content


def _connection(address: str, settings: Settings) -> tuple[http.client.HTTPConnection, str]:
    """A connection, and the prefix of its paths."""
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:")), ""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise TargetError(f"{address} has no valid port; a port is a number up to 65535") from None
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=SECONDS), parts.path
    tls = client_context(settings.services_ca, settings.services_cert, settings.services_key)
    return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=tls), parts.path


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def checked(content: bytes, where: str) -> dict[str, Any]:
    """The document in these bytes. TargetError if they are no OpenAPI document of version 3.1 or 3.2."""
    try:
        found = json.loads(content)
    except ValueError as error:
        raise TargetError(f"{where} is no OpenAPI document, because it is no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("paths", {}), dict):
        raise TargetError(f"{where} is no OpenAPI document: expected a JSON object with `openapi` and `paths`")
    version = found.get("openapi", found.get("swagger"))
    if version is None:
        raise TargetError(f"{where} is no OpenAPI document: it has no member `openapi` with a version, as in 3.1.0")
    if not str(version).startswith(("3.1.", "3.2.")):
        raise TargetError(
            f"{where} is a document of OpenAPI {version}, but stubs are made from 3.1; convert the document first"
        )
    return found
