"""The part of the soak test that calls: three services, each a process with workers of its own, behind each other.

Clients of the first service place orders, read streams, disconnect in the middle, and give too little time. The worker
of the third service is killed every few seconds. At the end:

- Every outcome is allowed for its kind; a short stream is never taken for a whole one.
- No job still runs: each was killed when its client had disconnected or its time was used up.
- Memory and descriptors of each process are the same as in the first pause.
- On SIGTERM each process exits with status 0, and no traceback is in its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parents[1] / "tests" / "support"
sys.path.insert(0, str(TESTS))

from http_ends import ReceivedResponse, get, read_response  # noqa: E402
from system import descendants, workers_below  # noqa: E402

NAMES = ("third", "second", "first")
CLIENTS, PAUSE = 4, 0.2
"""The clients pause for up to so many seconds after each call: the cores are for the other traffic."""

KILL_EVERY = 3.0
GUARD = 45.0
SLACK = 8 * 2**20
"""Bytes by which the memory of one process may differ by chance."""

IDLE, PATIENCE = 12.0, 30.0
"""Seconds in which idle connections between the services are closed; and on a busy machine."""

LOST, AVOIDED = "502 call-failed", "503 call-unavailable"
"""The worker of the third service was killed. Or calls had too little time, five in a row, on a busy machine: then the
service is avoided for a moment."""


class Service(NamedTuple):
    """One of the three."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path


class Rest(NamedTuple):
    """One process at rest."""

    memory: int
    descriptors: int


Script = Callable[["Chain", random.Random], Awaitable[str]]
Say = Callable[..., None]


class Chain:
    """The services, their clients and the outcomes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.services: dict[str, Service] = {}
        self.outcomes: dict[str, Counter[str]] = defaultdict(Counter)
        self.rests: list[dict[str, Rest]] = []
        self.killed = 0
        self._phase = 0
        for name in NAMES:
            self._start(name)

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "tinysvc", f"chain_{name}.py", "--port", "0", "--cpu-workers", "1"]
        if self.services:
            called = {callee: f"http://127.0.0.1:{service.port}" for callee, service in self.services.items()}
            command += ["--services", " ".join(f"chain_{callee}={url}" for callee, url in called.items())]
        log = self.folder / f"chain_{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=TESTS,
                env={**os.environ, "CHAIN_FOLDER": str(self.folder)},
                stdout=subprocess.PIPE,
                stderr=output,
            )
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(rb"listening on http://127.0.0.1:(\d+)", line):
                self.services[name] = Service(process, int(found[1]), log)
                return
        sys.exit(f"chain_{name}.py did not start:\n{log.read_text()}")

    @property
    def port(self) -> int:
        return self.services["first"].port

    # Traffic

    async def traffic(self) -> None:
        """Play until cancelled."""
        self._phase += 1
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kill(random.Random(f"{self.seed} calls {self._phase} kill")))
            for number in range(CLIENTS):
                tasks.create_task(self._act(random.Random(f"{self.seed} calls {self._phase} {number}")))

    async def _act(self, rng: random.Random) -> None:
        names, weights = list(KINDS), [weight for _, weight, _ in KINDS.values()]
        while True:
            (name,) = rng.choices(names, weights)
            try:
                async with asyncio.timeout(GUARD):
                    outcome = await KINDS[name][0](self, rng)
            except TimeoutError:
                outcome = f"it hung for {GUARD:g} s"
            except (OSError, asyncio.IncompleteReadError, ValueError, KeyError) as error:
                outcome = repr(error)
            self.outcomes[name][outcome] += 1
            await asyncio.sleep(rng.random() * PAUSE)

    async def _kill(self, rng: random.Random) -> None:
        pause = rng.uniform(0.5, 1.5)  # the first kill also comes in a short soak
        while True:
            await asyncio.sleep(pause)
            pause = rng.expovariate(1 / KILL_EVERY)
            for worker in await asyncio.to_thread(workers_below, self.services["third"].process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    self.killed += 1

    # The pause

    async def rest(self) -> None:
        """Wait until idle connections are closed; note memory and descriptors."""
        end = time.monotonic() + (PATIENCE if self.rests else IDLE)
        while True:
            await asyncio.sleep(1)
            found = {name: at_rest(service.process.pid) for name, service in self.services.items()}
            first = self.rests[0] if self.rests else {}
            if time.monotonic() > end or (first and not self._grown(first, found)):
                break
        self.rests.append(found)

    def _grown(self, before: dict[str, Rest], after: dict[str, Rest]) -> dict[str, str]:
        return {
            name: f"{before[name]} to {rest}"
            for name, rest in after.items()
            if rest.memory > before[name].memory + SLACK or rest.descriptors > before[name].descriptors + 2
        }

    async def judge(self, say: Say) -> None:
        """Say each claim, and whether it holds; then end the services."""
        for name, outcomes in self.outcomes.items():
            shown = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(6))
            print(f"      calls     {name:17} {shown}")
        odd = {
            name: [outcome for outcome in outcomes if outcome not in KINDS[name][2]]
            for name, outcomes in self.outcomes.items()
        }
        odd = {name: outcomes for name, outcomes in odd.items() if outcomes}
        total = sum(outcomes.total() for outcomes in self.outcomes.values())
        say(not odd, f"{total} calls through three services, each with an outcome of its kind", f"      {odd}")
        say(set(self.outcomes) == set(KINDS), "every kind of call occurred")
        say(self.killed > 0, f"{self.killed} workers of the third service were killed")
        grown = self._grown(self.rests[0], self.rests[-1])
        say(not grown, "memory and descriptors of the three are as in the first pause", f"      {grown}")
        used = await self._used_by_jobs()
        say(used < 0.5, "no job of the third service still runs", f"      its workers used {used:.2f} s in a second")
        await self._end(say)

    async def _used_by_jobs(self) -> float:
        """CPU seconds of the third service's workers in one second."""
        workers = workers_below(self.services["third"].process.pid)
        before = sum(map(cpu_seconds, workers))
        await asyncio.sleep(1)
        return sum(map(cpu_seconds, workers)) - before

    async def _end(self, say: Say) -> None:
        family = {pid for service in self.services.values() for pid in descendants(service.process.pid)}
        statuses = {}
        for name in reversed(NAMES):
            self.services[name].process.terminate()
            statuses[name] = await asyncio.to_thread(self.services[name].process.wait, 30)
        say(set(statuses.values()) == {0}, "the three services end with status 0", f"      {statuses}")
        say(not any(Path(f"/proc/{pid}").exists() for pid in family), "no process of the three services is left")
        faults = [line for line in self._log_lines() if line.startswith("Traceback")]
        say(not faults, "their logs have no traceback", f"      in {self.folder}")

    def _log_lines(self) -> Iterator[str]:
        for service in self.services.values():
            yield from service.log.read_text().splitlines()

    def kill(self) -> None:
        """End all processes at once."""
        for service in self.services.values():
            service.process.kill()
            service.process.wait()


def at_rest(pid: int) -> Rest:
    memory = re.search(r"^Rss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert memory is not None
    return Rest(int(memory[1]) * 1024, len(os.listdir(f"/proc/{pid}/fd")))


def cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# The kinds of calls: script, weight, allowed outcomes


@contextlib.asynccontextmanager
async def connected(chain: Chain) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", chain.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def asked(chain: Chain, path: str, *fields: str) -> ReceivedResponse:
    async with connected(chain) as (reader, writer):
        writer.write(get(path, *fields, method="POST"))
        answer = await read_response(reader)
        if answer is None:
            raise ConnectionResetError("closed without a response")
        return answer


def said(answer: ReceivedResponse) -> str:
    kind = json.loads(answer.body)["type"].removeprefix("urn:tinysvc:") if answer.status >= 400 else ""
    return f"{answer.status} {kind.removeprefix('about:blank')}".rstrip()


async def order(chain: Chain, rng: random.Random) -> str:
    answer = await asked(chain, f"/quick?key=k{rng.randrange(10)}")
    return said(answer)


async def not_found(chain: Chain, rng: random.Random) -> str:
    return said(await asked(chain, f"/status/{rng.choice([200, 404])}?key=status"))


async def too_late(chain: Chain, rng: random.Random) -> str:
    seconds = rng.choice([0.0, 0.05, 0.2])
    return said(await asked(chain, f"/in-time?key=late&seconds={seconds}"))


async def leaves_job(chain: Chain, rng: random.Random) -> str:
    """Start a job that never ends, and disconnect."""
    async with connected(chain) as (_, writer):
        writer.write(get(f"/stuck?key=k{rng.randrange(10)}"))
        await asyncio.sleep(rng.choice([0, 0.01, 0.1, 0.3]))
        return "disconnected"


async def leaves_stream(chain: Chain, rng: random.Random) -> str:
    """Read numbers that come through all services, and disconnect."""
    async with connected(chain) as (reader, writer):
        writer.write(get(f"/numbers?key=n{rng.randrange(10)}", method="POST"))
        await reader.readuntil(b"\r\n\r\n")
        expected, rest = 0, b""
        while expected < 50:
            size = int(await reader.readline(), 16)
            rest += (await reader.readexactly(size + 2))[:-2]
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if int(line) != expected:
                    return f"{expected} was expected, not {line!r}"
                expected += 1
        return "disconnected"


KINDS: dict[str, tuple[Script, int, set[str]]] = {
    "order": (order, 10, {"200", LOST, AVOIDED}),
    "not_found": (not_found, 10, {"200", "404", AVOIDED}),
    "too_late": (too_late, 2, {"504 budget-exhausted", LOST, AVOIDED}),
    "leaves_job": (leaves_job, 4, {"disconnected"}),
    "leaves_stream": (leaves_stream, 4, {"disconnected"}),
}
