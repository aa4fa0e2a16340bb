"""Streams of the server's own methods that last until the client ends them: a drain ends them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from ..core.shutdown import DRAINED

StreamBehavior = Callable[[Any, Any], Awaitable[None]]


class EndlessStreams:
    """These streams, by the tasks of their RPCs."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended = False

    def around(self, behavior: StreamBehavior) -> StreamBehavior:
        """`behavior`, which gets UNAVAILABLE when the server drains: its client goes elsewhere."""

        async def endless(messages: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await behavior(messages, context)
            except asyncio.CancelledError:
                if not self._ended:
                    raise
                task.uncancel()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
            finally:
                self._tasks.discard(task)

        return endless

    def end(self) -> None:
        """End all of them."""
        self._ended = True
        for task in list(self._tasks):
            task.cancel(DRAINED)
