"""A model of 200 MB is swapped under load: failed requests, p99, memory, and the time until the new version."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    ENVIRON,
    HERE,
    PYTHON,
    CannotMeasureError,
    Options,
    bar,
    median,
    request,
    say,
    spread,
    table,
    tree,
    wait_until,
)
from swapping import (
    SHARE,
    ModelPeer,
    Store,
    descriptors,
    load_on,
    memory,
    memory_watched,
    p99,
    rate_of,
    versions_on_disk,
)

from .models_peers import beside_peers, served_by_tinysvc
from .models_store import store_speed

TITLE = "models: a model of 200 MB is swapped under load"

MEGABYTES = 200
VERSIONS = 8
"""Each has other bytes. The first round over them downloads each into the server's cache; then all are there."""

ROLL_BACK = 90.0
"""Seconds in which the copies of the version before are kept, for a version that crashes workers, and some more."""

PATIENCE = 120.0
"""Seconds for a whole swap."""

SHARED_CORES = "The load generator, the server and the load of the next version share two cores with the two workers."

QUIET = 2.0
"""Seconds without a swap, before each swap and after the last one."""

APART = 8.0
"""The same beside workers that compute: a load of the next version after the other would need a core for itself."""


def measure(options: Options) -> str:
    versions = VERSIONS if not options.quick else 3
    with versions_on_disk(versions, MEGABYTES) as folder:
        parts = [swaps(options, folder, versions), beside_peers(options, folder)]
    return "\n".join([*parts, store_speed(options)])


# tinysvc: many swaps


@dataclass
class Swaps:
    """The figures of one run; instants of the load are in windows."""

    rate: float = 0.0
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)  # ms, of the requests that were due during a swap
    quiet: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # seconds from the commit to the first response
    whole: list[float] = field(default_factory=list)  # seconds from the commit to the end of the swap
    before: tuple[float, int, int] = (0.0, 0, 0)  # megabytes, descriptors, processes
    after: tuple[float, int, int] = (0.0, 0, 0)
    more: list[float] = field(default_factory=list)  # megabytes at the peak of a swap
    load: float = 0.0

    def __str__(self) -> str:
        return f"{self.rate:.0f} requests/s, {len(self.whole)} swaps, {self.asked:,} requests"

    @property
    def ratio(self) -> float:
        return p99(self.busy) / p99(self.quiet)


def swaps(options: Options, versions: Path, count: int) -> str:
    found, computing = Swaps(load=load_seconds(versions)), Swaps()
    with served_by_tinysvc(versions, count, 2, work="compute") as (peer, store):
        swap_under_load(peer, store, count, options.choose(8, 3), computing, APART)
    with served_by_tinysvc(versions, count, 2) as (peer, store):
        swap_under_load(peer, store, count, options.choose(100, 6), found)
        wait_until(lambda: descriptors(peer) <= found.before[1], ROLL_BACK)
        found.after = state_of(peer)
        for number in range(options.choose(5, 1)):
            with memory_watched(peer) as readings:
                whole_swap(peer, store, 2 - number % 2)
            found.more.append(max(readings) - readings[0])
    with served_by_tinysvc(versions, 2, 4) as (peer, store):
        whole_swap(peer, store, 2)
        of_four = memory(peer)
    return described(found, computing, of_four)


def swap_under_load(
    peer: ModelPeer, store: Store, versions: int, count: int, found: Swaps, quiet_time: float = QUIET
) -> None:
    rate = found.rate = rate_of(peer)
    found.before = state_of(peer)
    busy: list[tuple[float, float]] = []
    quiet: list[tuple[float, float]] = []
    wanted = []
    with load_on(peer, rate) as ended:
        for number in range(count):
            begin = time.monotonic()
            time.sleep(quiet_time)
            version = (number + 1) % versions + 1
            at, end = whole_swap(peer, store, version)
            quiet.append((begin + 0.5, at))  # the queue of the last swap is over
            busy.append((at, end))
            wanted.append((version, at))
            if (number + 1) % 10 == 0:
                say(f"  swap {number + 1} of {count}: {end - at:.1f} s")
        time.sleep(QUIET)
        load = ended()
    found.asked, found.failed = load.count, [reason for _, reason in load.failures]
    found.busy, found.quiet = load.delays(busy), load.delays(quiet)
    found.first = [load.first(version, at) - at for version, at in wanted]
    found.whole = [end - at for at, end in busy]


def whole_swap(peer: ModelPeer, store: Store, version: int) -> tuple[float, float]:
    """Promote a version; return the instants of the commit, and of the end: as many processes as before."""
    size = len(tree(peer.process.pid))
    at = store.promote(version)
    end = at + PATIENCE
    while not (served_version(peer) == version and len(tree(peer.process.pid)) == size):
        if time.monotonic() > end:
            raise CannotMeasureError(f"{peer.name}: the swap to version {version} does not end")
        time.sleep(0.05)
    return at, time.monotonic()


def served_version(peer: ModelPeer) -> int:
    """The version that all workers serve, from `/readyz`: a request to a worker would add to the load."""
    _, body = request(peer.port, "GET", "/readyz")
    version: int = json.loads(body)["artifacts"]["swap@production"]["version"]
    return version


def state_of(peer: ModelPeer) -> tuple[float, int, int]:
    """Megabytes, descriptors and processes, when the connections of the load are closed."""
    time.sleep(2)
    return memory(peer), descriptors(peer), len(tree(peer.process.pid))


def load_seconds(versions: Path) -> float:
    """What it takes to read a version into memory, in a process that does nothing else."""
    code = (
        "import pathlib, sys, time, swap_model; begin = time.monotonic();"
        " swap_model.load(pathlib.Path(sys.argv[1])); print(time.monotonic() - begin)"
    )
    command = [PYTHON, "-c", code, str(versions / "1")]
    return statistics.median(
        float(subprocess.run(command, cwd=HERE / "peers", env=ENVIRON, capture_output=True, check=True).stdout)
        for _ in range(5)
    )


def described(found: Swaps, computing: Swaps, of_four: float) -> str:
    (megabytes, open_before, processes), (megabytes_after, open_after, processes_after) = found.before, found.after
    rows = [
        [f"{what}, {when}", f"{len(delays):,}", median(delays, "{:.1f}"), f"{p99(delays):.1f}"]
        for what, swapped in (("workers that wait", found), ("workers that compute", computing))
        for when, delays in (("without a swap", swapped.quiet), ("during a swap", swapped.busy))
    ]
    failed = found.failed + computing.failed
    seconds = [
        ["from the alias to the first response", median(found.first, "{:.2f}"), spread(found.first, "{:.2f}")],
        ["from the alias to the end of the swap", median(found.whole, "{:.2f}"), spread(found.whole, "{:.2f}")],
        ["a process that only loads the model", f"{found.load:.2f}", ""],
    ]
    state = [
        ["before the first swap", f"{megabytes:,.0f}", str(open_before), str(processes)],
        ["after the last one", f"{megabytes_after:,.0f}", str(open_after), str(processes_after)],
    ]
    lines = [
        f"Two workers that share the model, requests at random instants, {SHARE:.0%} of what they can do."
        f" Workers that wait: {found}. Workers that compute: {computing}. Failed: {len(failed)}"
        f"{' (' + '; '.join(sorted(set(failed))[:3]) + ')' if failed else ''}.\n",
        table(["", "requests", "ms", "p99, ms"], rows) + "\n",
        table(["", "s", "spread"], seconds) + "\n",
        table(["", "MB", "descriptors", "processes"], state) + "\n",
        f"At the peak of a swap, MB more: {median(found.more)} ({spread(found.more)})."
        f" With four workers, after a swap: {of_four:,.0f} MB.\n",
        bar("requests that failed, workers that wait", [float(len(found.failed))], most=0),
        bar("requests that failed, workers that compute", [float(len(computing.failed))], most=0, why=SHARED_CORES),
        bar("p99 during a swap to p99 without, workers that wait", [found.ratio], most=2),
        bar("p99 during a swap to p99 without, workers that compute", [computing.ratio], most=2, why=SHARED_CORES),
        bar(
            "seconds from the alias to the first response, without loading",
            [each - found.load for each in found.first],
            most=2,
        ),
        bar("memory after all swaps to before", [megabytes_after / megabytes], most=1.05),
        bar("descriptors more after all swaps", [float(open_after - open_before)], most=0),
        bar("processes more after all swaps", [float(processes_after - processes)], most=0),
        bar(
            "MB more at the peak of a swap: one model, and the processes of a generation",
            found.more,
            most=MEGABYTES + 60,
        ),
        bar("MB more with four workers than with two", [of_four - megabytes_after], most=60),
    ]
    return "\n".join(lines) + "\n"
