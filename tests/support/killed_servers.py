"""Servers of killed_app.py that die at named steps, their clients, and what must hold after all deaths."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from commands import Served, command, served
from system import descendants, is_alive, wait_until

APP = str(Path(__file__).with_name("killed_app.py"))
GUARD = 40.0
"""Seconds after which a wait counts as a hang."""


class Servers:
    """One server after the other, with one store.

    Args:
        folder: For the store, the notes of the handlers and the name of the step.
        processes: Ends the last server.
        options: Options of the command.
    """

    def __init__(self, folder: Path, processes: ExitStack, *options: str) -> None:
        self.folder = folder
        self.arguments = ("-m", "tinysvc", APP, "--port", "0", "--cpu-workers", "1", *options)
        self.variables = {"KILL_POINTS_FOLDER": str(folder)}
        if "--jobs" in options:  # PostgreSQL: the attempts of a dead server begin again when its lease is over
            self.variables["KILL_POINTS_LEASE"] = "1.5"
        self._processes = processes
        self._client = processes.enter_context(httpx.Client(timeout=GUARD))
        self.server: Served

    def start(self) -> None:
        self.server = self._processes.enter_context(served(*self.arguments, cwd=self.folder, **self.variables))

    def die_at_start(self) -> None:
        """Start a server that reaches the step before it serves anything."""
        with command(*self.arguments, cwd=self.folder, **self.variables) as process:
            assert process.wait(GUARD) == -9

    # Kills

    def arm(self, step: str) -> None:
        """The next process that reaches this step dies."""
        temporary = self.folder / "kill-soon"
        temporary.write_text(step)
        temporary.rename(self.folder / "kill-here")

    @property
    def is_armed(self) -> bool:
        return (self.folder / "kill-here").exists()

    def wait_for_kill(self) -> None:
        wait_until(lambda: not self.is_armed, "a process reaches the step", GUARD)

    def wait_for_death(self) -> None:
        """The server was killed, and its family dies with it."""
        family = descendants(self.server.pid)
        assert self.server.process.wait(GUARD) == -9
        assert not self.is_armed
        wait_until(lambda: not any(map(is_alive, family)), "the workers of the killed server die", GUARD)

    def restart(self) -> None:
        self.wait_for_death()
        self.start()

    def kill(self) -> None:
        self.server.process.kill()
        self.restart()

    # The gate of the handlers

    def close_gate(self) -> None:
        (self.folder / "gate").touch()

    def open_gate(self) -> None:
        (self.folder / "gate").unlink()

    # Requests

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, self.server.url + path, **options)

    def patiently(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The response, if need be of the next server process: 503 and lost connections are tried again."""
        end = time.monotonic() + GUARD
        while True:
            try:
                response = self.request(method, path, **options)
                if response.status_code != 503:
                    return response
                problem = response.text
            except httpx.TransportError as error:
                problem = repr(error)
            assert time.monotonic() < end, f"{method} {path}: {problem}"
            if self.server.process.poll() is not None:
                self.restart()
            time.sleep(0.01)

    def submit(self, key: str, path: str = "/works", **order: Any) -> str:
        """The id of an accepted job. The request is repeated with its key until a server has accepted it."""
        response = self.patiently("POST", path, json=order, headers={"idempotency-key": key})
        assert response.status_code in (200, 202), response.text
        return str(response.json()["id"])

    def document(self, job: str, path: str = "/works") -> dict[str, Any]:
        response = self.patiently("GET", f"{path}/{job}")
        assert response.status_code == 200, f"an accepted job is lost: {response.text}"
        return dict(response.json())

    def ended(self, job: str, path: str = "/works") -> dict[str, Any]:
        """The document of the job, when it has ended."""
        found: list[dict[str, Any]] = []

        def has_ended() -> bool:
            found[:] = [self.document(job, path)]
            return found[0]["state"] in ("succeeded", "failed", "cancelled")

        wait_until(has_ended, f"{job} ends", GUARD)
        return found[0]

    def succeeded(self, job: str, size: int = 0) -> dict[str, Any]:
        """The document of a job that must succeed; its result is checked, too."""
        document = self.ended(job)
        assert document["state"] == "succeeded", document
        result = self.patiently("GET", f"/works/{job}/result")
        assert result.status_code == 200, result.text
        assert result.json() == {"id": job, "attempt": len(document["attempts"]), "filling": "x" * size}
        return document

    # What must hold

    def attempts(self, job: str) -> list[int]:
        """The numbers of the attempts that have started, in their order."""
        return [note.attempt for note in notes_in(self.folder) if (note.kind, note.job) == ("start", job)]

    def noted(self, kind: str, job: str, attempt: int, step: int) -> Callable[[], bool]:
        return lambda: any(note[1:] == (kind, job, attempt, step) for note in notes_in(self.folder))

    def check(self) -> None:
        """See `faults_of`."""
        assert not faults_of(notes_in(self.folder))


class Note(NamedTuple):
    """A step that a handler has noted: it starts, begins a step, or has saved it."""

    time: float
    kind: str
    job: str
    attempt: int
    step: int


def notes_in(folder: Path) -> list[Note]:
    try:
        lines = (folder / "notes").read_text().splitlines()
    except FileNotFoundError:
        return []
    fields = [line.split() for line in lines]
    return [Note(float(each[0]), each[1], each[2], int(each[3]), int(each[4]) if each[4:] else -1) for each in fields]


def faults_of(notes: list[Note]) -> list[str]:
    """What must never be: an attempt that starts twice, attempts beside each other, a saved step that runs again."""
    newest: dict[str, int] = {}
    saved: dict[str, int] = {}
    faults = []
    for _, kind, job, attempt, step in notes:
        before = newest.get(job, 0)
        if kind == "start":
            newest[job] = attempt
            if attempt <= before:
                faults.append(f"{job}: attempt {attempt} starts after attempt {before}")
            continue
        if attempt != before:
            faults.append(f"{job}: attempt {attempt} runs beside attempt {before}")
        if kind == "saved":
            saved[job] = step
        elif step <= saved.get(job, -1):
            faults.append(f"{job}: attempt {attempt} runs step {step} again, which was saved")
    return faults
