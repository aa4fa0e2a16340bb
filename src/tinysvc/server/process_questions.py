"""Questions of one server process to another, through the supervisor, which only passes them on.

    this process                        supervisor                       the process 41
    ask(41, b"...")
      ──"ask 41 7 ..."────────────────>
                                        ──"asked 40 7 ..."─────────────>
                                        <─"answer 40 7 ..."─────────────  the answer of its function
      <─"answered 7 ..."────────────────

A process that does not exist, or dies before it answers, makes the question fail after LIMIT.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

LIMIT = 5.0
"""Seconds to wait for an answer: a worker writes its stacks within two."""

log = logging.getLogger("tinysvc")


class Link(Protocol):
    """The socket to the supervisor."""

    def send_line(self, line: bytes) -> None:
        """Send a line, from any thread."""


class ProcessQuestions:
    """Asks other processes, and answers them.

    Args:
        link: The socket to the supervisor.
        answer: The answer to a question of another process. Both are one line.
    """

    def __init__(self, link: Link, answer: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._link = link
        self._answer = answer
        self._number = 0
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, pid: int, question: bytes) -> bytes:
        """The answer of another process. TimeoutError if there is none."""
        self._number += 1
        number = self._number
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = found
        try:
            await self._send(b"ask %d %d %b" % (pid, number, question))
            async with asyncio.timeout(LIMIT):
                return await found
        finally:
            del self._asked[number]

    def receive(self, line: bytes) -> None:
        """A line from the supervisor. Other lines are ignored."""
        kind, _, rest = line.partition(b" ")
        if kind == b"asked":
            asker, number, question = rest.split(b" ", 2)
            task = asyncio.get_running_loop().create_task(self._respond(asker, number, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == b"answered":
            number, _, answer = rest.partition(b" ")
            found = self._asked.get(int(number))
            if found is not None and not found.done():
                found.set_result(answer)

    async def _respond(self, asker: bytes, number: bytes, question: bytes) -> None:
        try:
            answer = await self._answer(question)
        except Exception:
            log.exception("a question of the server process %s could not be answered", asker.decode())
        else:
            await self._send(b"answer %b %b %b" % (asker, number, answer))

    async def _send(self, line: bytes) -> None:
        await asyncio.to_thread(self._link.send_line, line)  # the socket's buffer may be full


def passed_on(sender: int, line: bytes) -> tuple[int, bytes] | None:
    """What the supervisor sends for a line of the process `sender`, and to which one. None if it is no such line."""
    kind, _, rest = line.partition(b" ")
    if kind == b"ask":
        pid, _, question = rest.partition(b" ")
        return int(pid), b"asked %d %b" % (sender, question)
    if kind == b"answer":
        pid, _, answer = rest.partition(b" ")
        return int(pid), b"answered %b" % answer
    return None
