"""The other side of the keeper's socket: a server process that is not the keeper calls the store over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from ...core.errors import ConfigurationError
from ...core.job_errors import StoreError
from ..records import Change, Claimed
from .messages import (
    METHODS,
    Answer,
    Ask,
    Changed,
    Frames,
    Hello,
    Message,
    Raised,
    Refused,
    Welcome,
    error_of,
    raw,
)
from .socket import connected_socket

_NO_CALL = (None, "")

ANSWER_TIME = 10.0
"""Seconds for an answer. A keeper that waits for a locked file takes five; a stopped one (SIGSTOP) never answers."""


class LinkLost(Exception):
    """The connection to the keeper was lost before the answer came."""


class KeeperRefuses(ConfigurationError):
    """The keeper serves another service, or speaks another version."""


class KeeperLink:
    """A connection to the keeper. Make one with `connect`.

    Args:
        on_change: Called with each change of a durable job.
        on_claim: Called with the attempts that a claim has started, as soon as its answer is here.
        on_lost: Called once, when the connection is lost.
    """

    def __init__(
        self,
        on_change: Callable[[Change], None],
        on_claim: Callable[[list[Claimed]], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.keeper = 0  # its pid
        self._on_claim = on_claim
        self._on_change = on_change
        self._on_lost = on_lost
        self._frames = Frames(self._on_message, self._lost)
        self._numbers = count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any] | None, str]] = {}  # by number: the caller, the method
        self._welcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._is_lost = False

    @classmethod
    async def connect(
        cls,
        folder: Path,
        hello: Hello,
        on_change: Callable[[Change], None],
        on_claim: Callable[[list[Claimed]], None],
        on_lost: Callable[[], None],
    ) -> KeeperLink:
        """Connect to the keeper of the store.

        Raises:
            OSError: There is no keeper at the moment.
            LinkLost: The keeper has ended, or does not answer.
            KeeperRefuses: This process must not use the store.
        """
        link = cls(on_change, on_claim, lambda: None)
        sock = connected_socket(folder)
        await asyncio.get_running_loop().create_unix_connection(lambda: link._frames, sock=sock)
        link._frames.send(hello)
        try:
            async with asyncio.timeout(ANSWER_TIME):
                link.keeper = await link._welcome
        except BaseException as error:
            link.close()
            if isinstance(error, TimeoutError):
                raise LinkLost from None
            raise
        link._on_lost = on_lost
        return link

    def close(self) -> None:
        """Close the connection; `on_lost` is not called."""
        self._on_lost = lambda: None
        self._frames.abort()

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the keeper's store.

        Raises:
            LinkLost: The keeper may have carried it out, or not.
            JobError: The error of the store.
        """
        if self._is_lost:
            raise LinkLost
        number, future = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = future, method
        self._frames.send(Ask(number, method, raw(arguments)))
        try:
            async with asyncio.timeout(ANSWER_TIME):
                return await future
        except TimeoutError:
            raise StoreError(f"the keeper of the store, process {self.keeper}, did not answer in time") from None
        finally:
            if not (future.cancelled() and method == "claim"):  # else its answer names attempts to give back
                self._waiting.pop(number, None)

    def _give_back(self, claimed: list[Claimed]) -> None:
        """Release the attempts of a claim whose caller was cancelled."""
        for each in claimed:
            arguments = raw((each.record.id, each.record.attempt, "shutdown"))
            self._frames.send(Ask(next(self._numbers), "release", arguments))  # its answer does not matter

    def _on_message(self, message: Message) -> None:
        match message:
            case Answer():
                self._on_answer(message)
            case Raised():
                future, _ = self._waiting.pop(message.number, _NO_CALL)
                if future is not None and not future.done():
                    future.set_exception(error_of(message))
            case Changed():
                self._on_change(message.change)
            case Welcome() if not self._welcome.done():
                self._welcome.set_result(message.pid)
            case Refused() if not self._welcome.done():
                self._welcome.set_exception(KeeperRefuses(message.reason))

    def _on_answer(self, answer: Answer) -> None:
        future, method = self._waiting.pop(answer.number, _NO_CALL)
        if future is None:
            return
        value = METHODS[method].value.decode(answer.value)
        if method == "claim" and future.done():
            self._give_back(value)
        elif not future.done():
            if method == "claim":  # at once: if the connection is lost now, the next keeper must hear of these attempts
                self._on_claim(value)
            future.set_result(value)

    def _lost(self) -> None:
        self._is_lost = True
        if not self._welcome.done():
            self._welcome.set_exception(LinkLost())
        for future, _ in self._waiting.values():
            if future is not None and not future.done():
                future.set_exception(LinkLost())
        self._on_lost()
