"""The keeper's side: it answers the other server processes, which do not open the store themselves."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...core.forks import detach_in_child
from ...core.job_errors import JobError, StoreError
from ..records import MISSED, Change
from ..states import Refusal
from ..store import LocalStore
from .messages import (
    METHODS,
    VERSION,
    Answer,
    Ask,
    Changed,
    Content,
    Frames,
    Hello,
    Message,
    Refused,
    Retried,
    Welcome,
    raised,
    raw,
)
from .owners import release_unknown
from .socket import SOCKET, listening_socket

log = logging.getLogger("tinysvc.jobs")

LAST_ANSWERS = 5.0
"""Seconds in which a keeper that ends finishes the calls that it has begun."""


class KeeperServer:
    """Listens on the keeper's socket, and serves the store.

    Args:
        store: The open store.
        service: Name of the service whose store it is.
        folder: The folder of the socket.
        on_lost: Called when an owner has no connection any more.
    """

    def __init__(self, store: LocalStore, service: str, folder: Path, on_lost: Callable[[], None]) -> None:
        self.store = store
        self.service = service
        self.on_lost = on_lost
        self.connections: set[_Connection] = set()
        self.owners: Counter[str] = Counter()
        self.calls: dict[str, set[asyncio.Task[None]]] = {}  # by owner; they may go on after a connection is lost
        self._folder = folder
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Begin to listen."""
        options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        loop = asyncio.get_running_loop()
        listener = listening_socket(self._folder)
        detach_in_child(self, lambda _: [listener.fileno()])
        self._server = await loop.create_unix_server(lambda: _Connection(self).frames, sock=listener, **options)

    def is_connected(self, owner: str) -> bool:
        """Whether a process with this owner is connected."""
        return self.owners[owner] > 0

    async def aclose(self) -> None:
        """Finish the calls that have begun, then close all connections."""
        if self._server is not None:
            self._server.close()
            (self._folder / SOCKET).unlink(missing_ok=True)
        for connection in self.connections:
            connection.is_closing = True
        if calls := [call for calls in self.calls.values() for call in calls]:
            await asyncio.wait(calls, timeout=LAST_ANSWERS)
        for connection in list(self.connections):
            connection.frames.close()

    async def value_of(self, ask: Ask, owner: str) -> Any:
        """Call the method of the store."""
        arguments = METHODS[ask.method].arguments.decode(ask.arguments)
        if ask.method == "claim":
            if not owner:
                raise StoreError("a process without a lock cannot run durable jobs")
            return await self.store.claim(*arguments, owner=owner)
        value = await getattr(self.store, ask.method)(*arguments)
        if ask.method == "result":
            return _content(value)
        if ask.method == "retry":
            return Retried(refusal=value) if isinstance(value, Refusal) else Retried(record=value)
        return value


def _content(result: Any) -> Content:
    if result is None or isinstance(result, bytes):
        return Content(result)
    with result:
        return Content(path=os.path.abspath(result.name))


class _Connection:
    """The connection of one other process."""

    def __init__(self, keeper: KeeperServer) -> None:
        self.frames = Frames(self._on_message, self._on_lost)
        self.frames.on_room = self._report_missed
        self.is_closing = False
        self._keeper = keeper
        self._owner: str | None = None  # until Hello
        self._end_watch: Callable[[], None] = lambda: None
        self._has_missed = False
        keeper.connections.add(self)

    def _on_message(self, message: Message) -> None:
        if isinstance(message, Hello) and self._owner is None:
            self._start(self._welcome(message), message.owner)
        elif isinstance(message, Ask) and self._owner is not None:
            if not self.is_closing:  # else its sender repeats it
                self._start(self._answer(message), self._owner)
        else:
            self.frames.abort()

    def _start(self, work: Any, owner: str) -> None:
        calls = self._keeper.calls.setdefault(owner, set())
        task = asyncio.get_running_loop().create_task(work)
        calls.add(task)
        task.add_done_callback(calls.discard)

    async def _welcome(self, hello: Hello) -> None:
        if reason := self._refusal(hello):
            self.frames.send(Refused(reason))
            self.frames.close()
            return
        me = asyncio.current_task()
        earlier = [call for call in self._keeper.calls.get(hello.owner, ()) if call is not me]
        if (
            earlier
        ):  # of a connection that was lost: a claim among them may start attempts that its owner never hears of
            await asyncio.wait(earlier)
        if hello.owner:
            try:
                await release_unknown(self._keeper.store, hello.owner, set(hello.held))
            except Exception as error:
                log.error("the keeper cannot serve another process now: %s", error)
                self.frames.abort()
                return
        self._owner = hello.owner
        if self in self._keeper.connections:
            self._keeper.owners[hello.owner] += 1
            self._end_watch = self._keeper.store.watch(self._on_change)
            self.frames.send(Welcome(os.getpid()))

    def _refusal(self, hello: Hello) -> str:
        ours = self._keeper.service
        if hello.version != VERSION:
            return (
                f"process {os.getpid()} serves it, and speaks version {VERSION} of the messages between servers; this "
                f"process speaks version {hello.version}: stop that one first"
            )
        if hello.service and hello.service != ours:
            return f"it belongs to the service {ours!r}, which process {os.getpid()} serves; this is {hello.service!r}"
        return ""

    async def _answer(self, ask: Ask) -> None:
        assert self._owner is not None
        try:
            value = raw(await self._keeper.value_of(ask, self._owner))
        except Exception as error:
            if not isinstance(error, (JobError, ValueError)):
                log.exception("the store failed in %s", ask.method)
            self.frames.send(raised(ask.number, error))
        else:
            self.frames.send(Answer(ask.number, value))

    def _on_change(self, change: Change) -> None:
        if self.frames.is_full:
            self._has_missed = True
        else:
            self.frames.send(Changed(change))

    def _report_missed(self) -> None:
        if self._has_missed:
            self._has_missed = False
            self.frames.send(Changed(MISSED))

    def _on_lost(self) -> None:
        self._end_watch()
        self._keeper.connections.discard(self)
        if self._owner is not None:
            self._keeper.owners[self._owner] -= 1
            self._keeper.on_lost()
