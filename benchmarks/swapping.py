"""Servers that swap a model under load: versions on disk, the servers, the load, and readings of their processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import ENVIRON, HERE, PYTHON, CannotMeasureError, Peer, own_python, request, say, tree

BODY = {"values": [0.25, 0.5, 0.75, 1.0]}
SHARE = 0.8
"""The load, as a share of the capacity."""

CLIENTS, CAPACITY_SECONDS = 4, 4.0
"""A closed loop that finds the capacity of two workers."""


# Versions of the model


@contextlib.contextmanager
def versions_on_disk(count: int, megabytes: int) -> Iterator[Path]:
    """A folder with the versions 1, 2, ... of the model, each in a folder of its own, for the block."""
    code = "import sys, pathlib, swap_model; swap_model.write(pathlib.Path(sys.argv[1]), *map(int, sys.argv[2:]))"
    with tempfile.TemporaryDirectory(prefix="bench-versions-") as name:
        for number in range(1, count + 1):
            (folder := Path(name) / str(number)).mkdir()
            command = [PYTHON, "-c", code, str(folder), str(number), str(megabytes)]
            subprocess.run(command, cwd=HERE / "peers", env=ENVIRON, check=True)
        yield Path(name)


def point_to(versions: Path, number: int) -> None:
    """Let the link `current` name this version; no reader sees the link missing."""
    link = versions / "next"
    link.symlink_to(versions / str(number), target_is_directory=True)
    link.rename(versions / "current")


class Store:
    """A store of models in a folder, used through tinysvc of the peers' environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def publish(self, version: Path) -> int:
        """Publish the folder of a version; return its number."""
        return int(self._run("publish", str(version))["version"])

    def promote(self, number: int) -> float:
        """Let `production` name this version; return the instant of the commit."""
        return float(self._run("promote", str(number))["at"])

    def _run(self, *arguments: str) -> dict[str, Any]:
        command = [PYTHON, str(HERE / "peers" / "swap_store.py"), str(self.folder), *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRON, check=False)
        if ran.returncode:
            raise CannotMeasureError(f"the store: {ran.stderr[-500:]}")
        found: dict[str, Any] = json.loads(ran.stdout)
        return found


# Servers


@dataclasses.dataclass(kw_only=True)
class ModelPeer(Peer):
    """A server of the model. It is ready when its response to the probe has a version."""

    pattern: str = r'"version":\s*(\d+)'
    environ: dict[str, str] = dataclasses.field(default_factory=dict)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, ValueError, CannotMeasureError):
            return self.version() > 0
        return False

    def version(self) -> int:
        """The version that computes the response to a request."""
        status, body = request(self.port, *self.probe)
        found = re.search(self.pattern, body.decode())
        if status != 200 or found is None:
            raise CannotMeasureError(f"{self.name}: status {status}, {body[:200]!r}")
        return int(found[1])

    def restart(self) -> None:
        """End it as a deployment does, and start it again on the same port."""
        self.process.terminate()
        self.process.wait(60)
        self.log.close()
        self.folder.cleanup()
        self.start(self.port)

    def capacity(self) -> float:
        """Requests a second of a closed loop with a few clients."""
        counts, end = [0] * CLIENTS, time.monotonic() + CAPACITY_SECONDS

        def ask(number: int) -> None:
            while time.monotonic() < end:
                self.version()
                counts[number] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / CAPACITY_SECONDS


def descriptors(peer: Peer) -> int:
    """The open descriptors of all its processes."""
    count = 0
    for each in tree(peer.process.pid):
        with contextlib.suppress(OSError):  # it ended meanwhile
            count += len(os.listdir(f"/proc/{each.pid}/fd"))
    return count


def memory(peer: Peer) -> float:
    """Megabytes of all its processes; of memory that n processes share, each counts an n-th."""
    total = 0
    for each in tree(peer.process.pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{each.pid}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total * 1024 / 1e6


@contextlib.contextmanager
def memory_watched(peer: Peer, interval: float = 0.1) -> Iterator[list[float]]:
    """Readings of its memory while the block runs."""
    readings, ended = [memory(peer)], threading.Event()

    def watch() -> None:
        while not ended.wait(interval):
            readings.append(memory(peer))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield readings
    finally:
        ended.set()
        thread.join()


# Load


@dataclasses.dataclass(frozen=True)
class Found:
    """The responses and failures of a load; all instants are of CLOCK_MONOTONIC."""

    responses: list[tuple[float, float, int]]
    failures: list[tuple[float, str]]
    lateness: list[float]

    @property
    def count(self) -> int:
        return len(self.responses) + len(self.failures)

    def first(self, version: int, since: float) -> float:
        """The instant of the first response of a version, after this instant."""
        instants = [end for _, end, each in self.responses if each == version and end >= since]
        if not instants:
            raise CannotMeasureError(f"no response came from version {version}")
        return min(instants)

    def delays(self, windows: Sequence[tuple[float, float]]) -> list[float]:
        """The milliseconds of the requests that were due in one of these windows."""
        return [
            (end - due) * 1e3 for due, end, _ in self.responses if any(first <= due < last for first, last in windows)
        ]

    def longest_gap(self, since: float) -> float:
        """The longest time without a response, from this instant on."""
        ends = [since, *sorted(end for _, end, _ in self.responses if end >= since)]
        return max(later - earlier for earlier, later in itertools.pairwise(ends))


@contextlib.contextmanager
def load_on(peer: ModelPeer, rate: float, seed: int = 1) -> Iterator[Callable[[], Found]]:
    """Send requests at random instants while the block runs. Call the value at its end, once."""
    _, path, body = peer.probe
    command = [own_python(), str(HERE / "swap_load.py"), str(peer.port), str(rate), path, body.decode()]
    with subprocess.Popen(
        [*command, peer.pattern, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def found() -> Found:
            output, _ = process.communicate("", timeout=60)
            if process.returncode:
                raise CannotMeasureError(f"the load on {peer.name} ended with status {process.returncode}")
            read = json.loads(output)
            return Found([tuple(each) for each in read["responses"]], read["failures"], read["lateness"])

        try:
            yield found
        finally:
            process.kill()


def p99(values: Sequence[float]) -> float:
    if len(values) < 100:
        raise CannotMeasureError(f"{len(values)} requests have no p99")
    return statistics.quantiles(values, n=100)[98]


def rate_of(peer: ModelPeer) -> float:
    """The load of a peer: a share of what its two workers can do on this machine, now."""
    capacity = peer.capacity()
    say(f"  {peer.name}: {capacity:.0f} requests/s at most")
    return capacity * SHARE


def await_version(peer: ModelPeer, version: int, timeout: float = 60.0) -> None:
    """Wait until a response is of this version. The requests are few, as they add to the load."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(OSError, CannotMeasureError):
            if peer.version() == version:
                return
        time.sleep(0.25)
    raise CannotMeasureError(f"{peer.name} does not serve version {version}")
