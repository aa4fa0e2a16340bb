"""The model of the part `models` in other servers: what a swap costs the requests that come meanwhile."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import (
    HERE,
    CannotMeasureError,
    Options,
    bentoml,
    free_port,
    installed,
    median,
    own_environment,
    request,
    say,
    spread,
    table,
    tinysvc,
    with_environment,
)
from swapping import BODY, SHARE, Found, ModelPeer, Store, await_version, load_on, p99, point_to, rate_of

BEFORE, AFTER = 5.0, 3.0
"""Seconds of load before a swap, and after the new version has come."""

VALUES = BODY["values"]
MLSERVER_BODY = {"inputs": [{"name": "values", "shape": [len(VALUES)], "datatype": "FP32", "data": VALUES}]}


@dataclass(frozen=True)
class Way:
    """A server, and how it is made to serve another version."""

    name: str
    peer: ModelPeer
    swap: Callable[[int], object]
    how: str


def beside_peers(options: Options, versions: Path) -> str:
    rows, how = [], []
    for way in ways(versions):
        rows.append(measured(way, options.choose(3, 2)))
        how.append(f"- {way.name}: {way.how}.")
    heading = ["", "requests/s", "swaps", "requests", "failed", "longest gap, s", "new version, s", "p99, ms"]
    shown = table([*heading, "quiet p99, ms"], rows)
    return f"One swap at a time, {SHARE:.0%} of what each peer can do:\n\n{shown}\n\n" + "\n".join(how) + "\n"


def ways(versions: Path) -> Iterator[Way]:
    """One after the other; each server ends before the next one starts."""
    with served_by_tinysvc(versions, 2, 2) as (peer, store):
        yield Way("tinysvc", peer, store.promote, "the alias `production` is moved, and the server finds out")
    if environment := own_environment("mlserver"):
        with mlserver(environment, versions) as peer:
            yield Way(
                "MLServer, load",
                peer,
                lambda number: load_in_mlserver(peer, versions, number),
                "`POST /v2/repository/models/swap/load`, its way to load a model anew; two parallel workers",
            )
    if installed("bentoml"):
        with bento(versions) as peer:
            yield Way(
                "BentoML, SIGHUP",
                peer,
                lambda number: reload_bento(peer, versions, number),
                "its process manager replaces the two workers; its documentation does not mention this signal",
            )
        with bento(versions) as peer:
            yield Way(
                "BentoML, restart",
                peer,
                lambda number: restart_bento(peer, versions, number),
                "SIGTERM, and a new start when all its processes have ended",
            )


def measured(way: Way, count: int) -> list[str]:
    """The row of a peer: `count` swaps between the versions 1 and 2, with a load of its own for each."""
    rate = rate_of(way.peer)
    found: list[Found] = []
    gaps, delays, busy, quiet = [], [], [], []
    for number in range(count):
        version = 2 - number % 2
        with load_on(way.peer, rate, seed=number) as ended:
            begin = time.monotonic()
            time.sleep(BEFORE)
            at = time.monotonic()
            way.swap(version)
            await_version(way.peer, version)
            time.sleep(AFTER)
            load = ended()
        found.append(load)
        gaps.append(load.longest_gap(at))
        delays.append(load.first(version, at) - at)
        busy += load.delays([(at, float("inf"))])
        quiet += load.delays([(begin + 0.5, at)])
    failed = [len(load.failures) for load in found]
    reasons = sorted({reason for load in found for _, reason in load.failures})
    say(f"  {way.name}: {failed} failed ({'; '.join(reasons)[:200]}), gaps {spread(gaps, '{:.2f}')} s")
    return [
        way.name,
        f"{rate:.0f}",
        str(count),
        f"{sum(load.count for load in found):,}",
        f"{sum(failed):,}",
        f"{median(gaps, '{:.2f}')} ({spread(gaps, '{:.2f}')})",
        f"{median(delays, '{:.2f}')} ({spread(delays, '{:.2f}')})",
        f"{p99(busy):,.0f}",
        f"{p99(quiet):,.0f}",
    ]


# The servers


def model_peer(name: str, command: list[str]) -> ModelPeer:
    return ModelPeer(name=name, command=command, probe=("POST", "/predict", json.dumps(BODY).encode()))


@contextmanager
def running(peer: ModelPeer) -> Iterator[ModelPeer]:
    say(f"  starting {peer.name}")
    peer.start()
    try:
        yield peer
    finally:
        peer.stop()


@contextmanager
def served_by_tinysvc(
    versions: Path, count: int, workers: int, work: str = "wait"
) -> Iterator[tuple[ModelPeer, Store]]:
    """A server with the first versions in its store; version 1 is served."""
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        store = Store(Path(folder))
        for number in range(1, count + 1):
            store.publish(versions / str(number))
        store.promote(1)
        command = tinysvc("tinysvc_swap.py", "--models", folder, "--cpu-workers", str(workers))
        command = with_environment("WORK", work, command)
        with running(model_peer(f"tinysvc, {workers} workers", command)) as peer:
            yield peer, store


@contextmanager
def mlserver(environment: Path, versions: Path) -> Iterator[ModelPeer]:
    """MLServer with two parallel workers, and version 1."""
    point_to(versions, 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        settings = {"name": "swap", "implementation": "mlserver_swap.Model"}
        parameters = {"uri": str(versions / "current")}
        (folder / "model-settings.json").write_text(json.dumps({**settings, "parameters": parameters}))
        command = [str(environment / "bin" / "mlserver"), "start", str(folder)]
        environ = {
            "PYTHONPATH": HERE / "peers",
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": free_port(),
            "MLSERVER_METRICS_PORT": free_port(),
            "MLSERVER_METRICS_DIR": "{folder}",
            "MLSERVER_PARALLEL_WORKERS": 2,
        }
        for name, value in environ.items():
            command = with_environment(name, value, command)
        peer = ModelPeer(
            name="MLServer",
            command=command,
            probe=("POST", "/v2/models/swap/infer", json.dumps(MLSERVER_BODY).encode()),
            pattern=r'"version".*?"data":\[(\d+)',
        )
        yield stack.enter_context(running(peer))


def load_in_mlserver(peer: ModelPeer, versions: Path, number: int) -> None:
    point_to(versions, number)
    status, body = request(peer.port, "POST", "/v2/repository/models/swap/load", timeout=60)
    if status != 200:
        raise CannotMeasureError(f"MLServer does not load version {number}: {status} {body[:200]!r}")


@contextmanager
def bento(versions: Path) -> Iterator[ModelPeer]:
    """BentoML with two workers, and version 1."""
    point_to(versions, 1)
    command = with_environment("MODEL_FOLDER", versions / "current", bentoml("bentoml_swap:Model"))
    with running(model_peer("BentoML", command)) as peer:
        yield peer


def reload_bento(peer: ModelPeer, versions: Path, number: int) -> None:
    point_to(versions, number)
    os.kill(peer.process.pid, signal.SIGHUP)


def restart_bento(peer: ModelPeer, versions: Path, number: int) -> None:
    point_to(versions, number)
    peer.restart()
