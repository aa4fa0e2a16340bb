"""Spans of calls by gRPC: what a request over HTTP has (runtime/tracing.py), with the attributes of an RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..core.requests import Request
from ..core.responses import Handler, Response
from ..runtime.tracing import Tracing
from ..telemetry.recorded_spans import recorded_span
from .rpc_errors import code_of


class RpcTraces:
    """A method with a span around each of its calls that is recorded.

    Args:
        name: Its name, as in "inference.Inference/Predict".
        handler: The handler of its route.
        respond_to_error: The response to an error of the handler.
    """

    def __init__(
        self, name: str, handler: Handler, respond_to_error: Callable[[BaseException, Request], Response]
    ) -> None:
        self._name = name
        self._handler = handler
        self._respond_to_error = respond_to_error

    def around(self, tracing: Tracing) -> Handler:
        """The handler. It raises only if no client waits for a response."""
        return tracing.around(self, self._describe)

    async def handle(self, request: Request) -> Response:
        """The response; the span gets its status."""
        try:
            response = await self._handler(request)
        except BaseException as error:
            response = self._respond_to_error(error, request)
        if (span := recorded_span()) is not None:
            is_error = response.status >= 400
            code = code_of(response.status, dict(response.headers)).name if is_error else "OK"
            span.fields.attributes["rpc.status_code"] = code
        return response

    def route_of(self, request: Request) -> str:
        """As log lines name it."""
        return f"RPC {self._name}"

    def _describe(self, request: Request) -> tuple[str, dict[str, Any]]:
        client = request.client
        return self._name, {
            "rpc.system.name": "grpc",
            "rpc.method": self._name,
            "client.address": client[0] if isinstance(client, tuple) and client else "",
            "user_agent.original": request.headers.get("user-agent", ""),
        }
