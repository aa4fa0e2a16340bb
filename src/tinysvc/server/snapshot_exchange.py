"""The metrics of all server processes of a service, at one of them: its side of the link to the supervisor.

    this process                              supervisor (process_snapshots.py)          each process, this one too
    gather      ──"gather 7"────────────────>
                                              ──"report 12"───────────────────────────>
                                              <─"snapshot 12 ..."──────────────────────  its counters, now
                <─"snapshots 7 ...,..."───────  the last one of each, and of the dead

A value that a scrape has shown is known to the supervisor. So no counter falls when a process dies. Each process also
reports once a second, without being asked: a process that is killed loses the counts of a second.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ..telemetry.instruments import Registry
from ..telemetry.snapshots import Snapshot, decode_snapshot, encode_snapshot
from .process_questions import Link, ProcessQuestions

INTERVAL = 1.0
"""Seconds between two reports: what a killed process can lose."""

GATHER_LIMIT = 2.0
"""Seconds to wait for the supervisor; then a scrape gets the metrics of this process alone."""


class SnapshotExchange:
    """Reports the metrics of this process, and asks for those of all."""

    def __init__(self, link: Link, registry: Registry) -> None:
        self._link = link
        self._registry = registry
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "tinysvc-snapshots")
        self._asked: dict[int, asyncio.Future[list[Snapshot]]] = {}
        self._number = 0
        self._received = b""
        self.questions: ProcessQuestions | None = None  # gets the other lines
        self._report_regularly()

    async def gather(self) -> list[Snapshot]:
        """The metrics of all processes; of this one alone if the supervisor does not answer."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[list[Snapshot]] = self._loop.create_future()
        self._asked[number] = answer
        self._thread.submit(self._link.send_line, b"gather %d" % number)
        try:
            async with asyncio.timeout(GATHER_LIMIT):
                return await answer
        except TimeoutError:
            return [self._registry.snapshot()]
        finally:
            del self._asked[number]

    def receive(self, data: bytes) -> None:
        """Bytes from the supervisor."""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            kind, number, *rest = line.split(b" ", 2)
            if kind == b"report":
                self._report(int(number))
            elif kind == b"snapshots":
                self._decode(int(number), rest[0])
            elif self.questions is not None:
                self.questions.receive(line)

    def close(self) -> None:
        """Report for the last time: nothing that this process has counted is lost."""
        self._timer.cancel()
        self._report(0)
        self._thread.shutdown()

    def _report_regularly(self) -> None:
        self._timer = self._loop.call_later(INTERVAL, self._report_regularly)
        self._report(0)

    def _report(self, number: int) -> None:
        self._thread.submit(self._send_snapshot, number, self._registry.snapshot())

    def _send_snapshot(self, number: int, snapshot: Snapshot) -> None:
        self._link.send_line(b"snapshot %d %b" % (number, encode_snapshot(self._registry.complete(snapshot))))

    def _decode(self, number: int, data: bytes) -> None:
        if number in self._asked:
            decoding = self._loop.run_in_executor(self._thread, _decode_all, data)
            decoding.add_done_callback(lambda done: self._answer(number, done))

    def _answer(self, number: int, done: asyncio.Future[list[Snapshot]]) -> None:
        answer = self._asked.get(number)
        if answer is None or answer.done():
            return
        if (error := done.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())


def _decode_all(data: bytes) -> list[Snapshot]:
    return [decode_snapshot(each) for each in data.split(b",")]
