"""gRPC of one server process, beside its HTTP server: the same running service, another protocol.

Imported only where gRPC is served, after the process has been forked: grpcio does not survive a fork.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.errors import ConfigurationError
from ..core.optional_libraries import missing_library
from ..core.settings import Settings
from ..runtime.messages import Messages
from ..service.plan import Plan
from .cpu_sharing import CpuSharing
from .sockets import socket_addresses

if TYPE_CHECKING:
    from ..grpc.rpc_schema import RpcSchema
    from ..grpc.rpc_server import RpcServer
    from ..runtime.running_service import RunningService
    from ..runtime.service_metrics import ServiceMetrics

log = logging.getLogger("tinysvc.grpc")


class GrpcListener:
    """The gRPC server of a process, from its schema to its drain.

    Args:
        settings: The server's settings; `grpc` is not empty.
        sockets: Sockets that reserve the addresses; none for a Unix socket.

    Raises:
        ConfigurationError: A library is missing.
    """

    def __init__(self, settings: Settings, sockets: Sequence[socket.socket]) -> None:
        if missing := missing_library("grpc"):
            raise ConfigurationError(f"grpc is {settings.grpc}, but {missing}")
        self._settings = settings
        self._sockets = sockets
        self._schema: RpcSchema
        self._server: RpcServer
        self._sharing: CpuSharing

    def messages_of(self, plans: Sequence[Plan]) -> Mapping[Plan, Messages]:
        """The routes that are served by gRPC. ConfigurationError for a type that has no message."""
        from ..grpc.schema_of import schema_of

        self._schema = schema_of(plans)
        if left_out := self._schema.left_out:
            log.info("only HTTP serves %s", ", ".join(f"{plan.path} ({why})" for plan, why in left_out))
        for note in self._schema.notes:
            log.warning("%s", note)
        return {
            each.plan: Messages(each.codec, each.server_streams, each.client_streams, each.path[1:])
            for each in self._schema.methods
        }

    async def start(self, running: RunningService, metrics: ServiceMetrics | None) -> None:
        """Listen. ConfigurationError if the address cannot be had."""
        from ..grpc.rpc_server import RpcServer

        registry = None if metrics is None else metrics.registry
        self._server = RpcServer(running, self._schema.file_descriptor_set, self._settings, registry)
        await self._server.start(socket_addresses(self._sockets))
        self._sharing = CpuSharing(lambda: self._server.calls.begun, has_workers=bool(running.pools))

    @property
    def addresses(self) -> list[str]:
        """As in "127.0.0.1:50051" or "unix:/run/grpc.sock"."""
        return self._server.addresses

    def reload_certificates(self) -> None:
        """Use the certificates that the files have now, for new connections."""
        self._server.reload_certificates()

    def leave(self) -> None:
        """The server ends soon: health checks fail from now on."""
        self._server.health.leave()

    def begin_drain(self, seconds: float) -> None:
        """Take no new RPC."""
        self._server.begin_drain(seconds)

    async def drain(self, seconds: float) -> int:
        """Let the RPCs finish within `seconds`; then end them. Returns how many had not finished."""
        self._sharing.close()
        return await self._server.drain(seconds)
