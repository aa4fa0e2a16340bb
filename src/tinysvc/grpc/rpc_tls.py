"""TLS of the gRPC server: the files of the HTTP server. Each handshake uses what `reload` has read last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from ..core.settings import Settings


class RpcCertificates:
    """The certificate of a gRPC server. The files have been checked: server/tls.py reads them first.

    Args:
        settings: `ssl_cert`, `ssl_key` and, to demand certificates of clients, `ssl_ca`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fresh: Any = None  # what the next handshake takes over
        self.credentials = grpc.dynamic_ssl_server_credentials(
            self._read(), self._take, require_client_authentication=bool(settings.ssl_ca)
        )

    def reload(self) -> None:
        """Read the files again, for new connections."""
        self._fresh = self._read()

    def _take(self) -> Any:
        """Called in a thread of grpcio at each handshake; None: nothing has changed."""
        fresh, self._fresh = self._fresh, None
        return fresh

    def _read(self) -> Any:
        settings = self._settings
        certificate = Path(settings.ssl_cert).read_bytes()
        key = Path(settings.ssl_key).read_bytes() if settings.ssl_key else certificate
        authorities = Path(settings.ssl_ca).read_bytes() if settings.ssl_ca else None
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)
