"""The part of the soak test that kills: durable jobs in two server processes, and `kill -9` at random, again and again.

Clients submit durable jobs, cancel some, and repeat each request until it is answered. In each *round* one process
dies: a server process, all of them, a worker or a forkserver, at a random moment or at a named step of a transaction
(tests/support/kill_points.py). At the end:

- Each job that was acknowledged is there, and has ended as it should: no 202 was a lie.
- No attempt started twice, none ran beside another one, and no step that was saved ran again.
- Each result is that of the attempt that the store counts: no late write was accepted.
- No job that was cancelled for a client has done anything after that.

    python benchmarks/soak_jobs.py --rounds 500         --seed, which is printed, decides all random choices

With --postgres the store is a PostgreSQL that this starts: it crashes, too, and server processes freeze for longer than
their lease.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).resolve().parents[1] / "tests" / "support"
sys.path.insert(0, str(TESTS))

from http_ends import ReceivedResponse, read_response  # noqa: E402
from killed_servers import faults_of, notes_in  # noqa: E402
from postgres import MISSING, Postgres, running_postgres  # noqa: E402
from system import descendants, parent  # noqa: E402

CLIENTS = 6
ROUND = 0.5
"""Seconds in which a named step is reached, and the mean pause before a kill at a random moment."""

GUARD = 60.0
"""Seconds after which an operation counts as hanging, on a busy machine, too."""

COMMITS = ("accepted", "claim", "save", "finish", "fail", "cancel", "stopped", "lapse")
STEPS = [
    *(f"{when}-commit:{event}" for event in COMMITS for when in ("before", "after")),
    "after-file",
    "worker:in-step",
    "worker:after-save",
    "worker:before-return",
]
DEATHS = 6
"""Deaths after which all server processes are killed: with each death the supervisor waits longer."""

VICTIMS = ("all", "server process", "worker", "forkserver")

LEASE = 1.5
FROZEN = 2.5
"""Seconds for which a server process stands still: its lease is over when it goes on."""

OF_POSTGRES = ("database", "frozen server process")
"""What else happens with --postgres."""


class Accepted(NamedTuple):
    """A job that a client was told to be accepted."""

    job: str
    size: int


class System:
    """The servers with one store, one after the other."""

    def __init__(self, folder: Path, postgres: Postgres | None) -> None:
        self.folder, self.postgres = folder, postgres
        self.jobs = str(folder / "jobs.db")
        self.variables = {"KILL_POINTS_FOLDER": str(folder)}
        if postgres is not None:
            self.jobs = asyncio.run(postgres.create_schema())
            self.variables["KILL_POINTS_LEASE"] = str(LEASE)
        self.log = folder / "server.log"
        self.deaths: Counter[str] = Counter()
        self.deaths_at_start = 0
        self.start()

    def start(self) -> None:
        """Start the command; all of it was killed before, or nothing runs yet."""
        command = [sys.executable, "-m", "tinysvc", "killed_app.py", "--port", "0", "--cpu-workers", "1"]
        command += ["--workers", "2", "--jobs", self.jobs]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=TESTS,
                env={**os.environ, **self.variables},
                stdout=subprocess.PIPE,
                stderr=output,
            )
        self.deaths_at_start = self.deaths.total()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.match(rb"listening on http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                return
        self.process.wait()  # it was killed while it recovered

    def revive(self) -> None:
        """Start it, and again if a step of the recovery kills it."""
        while self.process.poll() is not None:
            self.start()

    def arm(self, step: str) -> None:
        temporary = self.folder / "kill-soon"
        temporary.write_text(step)
        temporary.rename(self.folder / "kill-here")

    def disarm(self) -> bool:
        """Whether the step was not reached."""
        try:
            (self.folder / "kill-here").unlink()
        except FileNotFoundError:
            return False
        return True

    def victims(self, kind: str) -> list[int]:
        family = descendants(self.process.pid)
        if kind == "all":
            return [self.process.pid]
        if kind.endswith("server process"):
            return [pid for pid in family if parent(pid) == self.process.pid and "forkserver" not in family[pid]]
        forkservers = [pid for pid, line in family.items() if "forkserver_main" in line]
        if kind == "forkserver":
            return [pid for pid in forkservers if parent(pid) not in forkservers]
        return [pid for pid in forkservers if parent(pid) in forkservers]

    # Requests

    async def request(self, method: str, path: str, body: Any = None, key: str = "") -> ReceivedResponse:
        """The response, from whichever server process: 503 and lost connections are tried again."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: a", f"content-length: {len(content)}", "connection: close"]
        lines += ["content-type: application/json"] if content else []
        lines += [f"idempotency-key: {key}"] if key else []
        async with asyncio.timeout(GUARD):
            while True:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    try:
                        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                        response = await read_response(reader)
                    finally:
                        writer.close()
                    if response is not None and response.status != 503:
                        return response
                await asyncio.sleep(0.02)

    async def when_ended(self, job: str) -> dict[str, Any]:
        """The document of a job that has ended, or that does not end within GUARD seconds."""
        end = time.monotonic() + GUARD
        while True:
            response = await self.request("GET", f"/works/{job}")
            if response.status != 200:
                return {"state": f"lost: {response.status}"}
            document: dict[str, Any] = json.loads(response.body)
            if document["state"] in ("succeeded", "failed", "cancelled") or time.monotonic() > end:
                return document
            await asyncio.sleep(0.05)


class Clients:
    """The clients, and what they were told."""

    def __init__(self, system: System, seed: int) -> None:
        self.system, self.seed = system, seed
        self.accepted: dict[str, Accepted] = {}
        self.cancelled: dict[str, float] = {}
        """When the response of DELETE came."""
        self.problems: list[str] = []
        self.stop = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._act(number, random.Random(f"{self.seed} client {number}")))

    async def _act(self, number: int, rng: random.Random) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            try:
                await self._one_job(f"{number}-{count}", rng)
            except TimeoutError:
                self.problems.append(f"client {number} hung for {GUARD:g} s")
                return

    async def _one_job(self, key: str, rng: random.Random) -> None:
        size = rng.choice([0, 0, 100_000])
        order = {
            "steps": rng.randint(1, 4),
            "size": size,
            "fails": rng.choice([0, 0, 0, 1]),
            "pause": rng.random() / 20,
        }
        response = await self.system.request("POST", "/works", order, key)
        if response.status not in (200, 202):
            self.problems.append(f"POST: {response.status} {response.body[:200]!r}")
            return
        job = json.loads(response.body)["id"]
        self.accepted[key] = Accepted(job, size)
        if rng.random() < 0.3:
            await asyncio.sleep(rng.random() / 5)
            response = await self.system.request("DELETE", f"/works/{job}")
            if response.status == 200:
                self.cancelled[job] = time.monotonic()
            elif response.status != 409:
                self.problems.append(f"DELETE: {response.status} {response.body[:200]!r}")
        elif rng.random() < 0.9:
            await self.system.when_ended(job)


class Soak:
    """The rounds, and the verdict."""

    def __init__(self, folder: Path, rounds: int, seed: int, postgres: Postgres | None) -> None:
        self.rounds = rounds
        self.rng = random.Random(f"{seed} kills")
        self.system = System(folder, postgres)
        steps = [step for step in STEPS if postgres is None or step != "after-file"]  # it keeps results in its tables
        self.steps = [*steps, *VICTIMS, *(OF_POSTGRES if postgres else ())]
        self.clients = Clients(self.system, seed)
        self.faults = 0

    def say(self, holds: bool, claim: str, *details: str) -> None:
        print(f"{'ok  ' if holds else 'FAIL'}  {claim}", flush=True)
        if not holds:
            self.faults += 1
            print(*details[:20], sep="\n", flush=True)

    async def run(self) -> int:
        traffic = asyncio.ensure_future(self.clients.run())
        started = time.monotonic()
        for number in range(self.rounds):
            await self._round()
            if number % 50 == 49:
                print(f"      {number + 1} rounds, {len(self.clients.accepted)} jobs", flush=True)
        print(f"      {self.rounds} rounds in {time.monotonic() - started:.0f} s", flush=True)
        self.clients.stop.set()
        await traffic
        await self._judge()
        return self.faults

    async def _round(self) -> None:
        """Kill once."""
        step, system = self.rng.choice(self.steps), self.system
        if system.deaths.total() >= system.deaths_at_start + DEATHS:
            step = "all"
        if step == "database":
            assert system.postgres is not None
            await asyncio.to_thread(system.postgres.stop, self.rng.choice([signal.SIGQUIT, signal.SIGKILL]))
            await asyncio.to_thread(system.postgres.start)
            system.deaths[step] += 1
        elif step in (*VICTIMS, *OF_POSTGRES):
            await asyncio.sleep(self.rng.random() * ROUND)
            await asyncio.to_thread(system.revive)
            if found := await asyncio.to_thread(system.victims, step):
                with contextlib.suppress(ProcessLookupError):
                    await self._end(step, self.rng.choice(sorted(found)))
                    system.deaths[step] += 1
            if step == "all":
                await asyncio.to_thread(system.process.wait)
        else:
            system.arm(step)
            end = time.monotonic() + ROUND
            while time.monotonic() < end and (system.folder / "kill-here").exists():
                await asyncio.sleep(0.01)
            if not system.disarm():
                system.deaths[step] += 1
        await asyncio.to_thread(system.revive)

    async def _end(self, step: str, pid: int) -> None:
        """Kill the process, or let it stand still."""
        if "frozen" not in step:
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(FROZEN)
        finally:
            os.kill(pid, signal.SIGCONT)

    # The verdict

    async def _judge(self) -> None:
        system, clients = self.system, self.clients
        total = system.deaths.total()
        print("      " + ", ".join(f"{count} {step}" for step, count in sorted(system.deaths.items())))
        self.say(
            not clients.problems, f"{len(clients.accepted)} jobs were accepted, in {total} kills", *clients.problems
        )
        ends: Counter[str] = Counter()
        wrong: list[str] = []
        for accepted in clients.accepted.values():
            ends[await self._end_of(accepted, wrong)] += 1
        self.say(not wrong, f"each of them is there, and has ended as it should: {dict(ends)}", *wrong)
        notes = await asyncio.to_thread(notes_in, system.folder)
        faults = faults_of(notes)
        starts = sum(note.kind == "start" for note in notes)
        self.say(not faults, f"{starts} attempts: none twice, none beside another, no saved step again", *faults)
        late = [note for note in notes if note.time > clients.cancelled.get(note.job, note.time)]
        self.say(not late, f"{len(clients.cancelled)} cancelled jobs did nothing after the response", *map(str, late))
        unreached = [step for step in self.steps if not system.deaths[step]]
        self.say(self.rounds < 300 or not unreached, "each step was reached", f"      {unreached}")
        family = descendants(system.process.pid)
        system.process.terminate()
        status = await asyncio.to_thread(system.process.wait, 30)
        self.say(status == 0, "the server ends with status 0", f"      {status}")
        self.say(not any(Path(f"/proc/{pid}").exists() for pid in family), "no process is left")
        lines = system.log.read_text(errors="replace").splitlines()
        traces = [line for line in lines if line.startswith("Traceback")]
        self.say(not traces, "the log has no traceback", f"      {len(traces)} in {system.log}")

    async def _end_of(self, accepted: Accepted, wrong: list[str]) -> str:
        """The state in which a job has ended."""
        job = accepted.job
        document = await self.system.when_ended(job)
        state = str(document.get("state"))
        if job in self.clients.cancelled:
            if state != "cancelled":
                wrong.append(f"{job} was cancelled, and is {state}")
            return state
        if state != "succeeded":
            wrong.append(f"{job}: {document}")
            return state
        result = await self.system.request("GET", f"/works/{job}/result")
        expected = {"id": job, "attempt": document["attempts"][-1]["number"], "filling": "x" * accepted.size}
        if result.status != 200 or json.loads(result.body) != expected:
            wrong.append(f"{job}: {result.status} {result.body[:200]!r} instead of {str(expected)[:200]}")
        return state


def kill(system: System) -> None:
    system.process.kill()
    system.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    if options.postgres and MISSING:
        print(f"no rounds with PostgreSQL: {MISSING}")
        return 0
    with running_postgres() if options.postgres else contextlib.nullcontext() as postgres:
        return soak(options.rounds, options.seed, postgres)


def soak(rounds: int, seed: int, postgres: Postgres | None) -> int:
    folder = Path(tempfile.mkdtemp(prefix="tinysvc-soak-jobs-"))
    print(f"{rounds} rounds with --seed {seed}{' --postgres' if postgres else ''}; in {folder}", flush=True)
    rounds_of_kills = Soak(folder, rounds, seed, postgres)
    try:
        faults = asyncio.run(rounds_of_kills.run())
    finally:
        kill(rounds_of_kills.system)
    if not faults:
        shutil.rmtree(folder)
    print("no fault" if not faults else f"{faults} faults", flush=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
