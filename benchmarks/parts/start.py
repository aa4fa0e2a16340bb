"""Start-up times: an import, a server that listens, the memory of a model."""

from __future__ import annotations

import concurrent.futures
import re
import statistics
import subprocess
import time
from pathlib import Path

from harness import (
    ENVIRON,
    HERE,
    PYTHON,
    CannotMeasureError,
    Options,
    Peer,
    bar,
    installed,
    median,
    mosec,
    ratios,
    request,
    say,
    spread,
    started,
    table,
    tinysvc,
    tree,
    uvicorn,
    with_environment,
)

from .cpu import awake

TITLE = "start: import, listen, and what a model takes"

SUM = 50_000_000
"""The sum of the model of ones: its number of floats, four bytes each."""

SHARED = {
    "tinysvc, a shared resource, 1 worker": "1",
    "tinysvc, a shared resource, 2 workers": "2",
    "tinysvc, a shared resource, 4 workers": "4",
}
"""Rows of the model's table -> workers."""

FASTAPI = "import fastapi"
SERVICES = {
    "one io and one cpu route": "tinysvc_small.py",
    "the same, and `import numpy`": "tinysvc_numpy.py",
}


def measure(options: Options) -> str:
    return f"{imports(options)}\n{listening(options)}\n{model_memory()}"


def imports(options: Options) -> str:
    """Wall time of a whole `python -c`, in turns, minus the median of bare Python."""
    codes = {"import tinysvc": "import tinysvc", FASTAPI: "import fastapi", "bare python": "pass"}
    if not installed("fastapi"):
        del codes[FASTAPI]
    times: dict[str, list[float]] = {name: [] for name in codes}
    for number in range(options.choose(41, 3) + 1):
        for name, code in codes.items():
            begin = time.perf_counter()
            subprocess.run([PYTHON, "-c", code], check=True, cwd=HERE, env=ENVIRON)
            if number:  # the first run only fills the file cache
                times[name].append((time.perf_counter() - begin) * 1e3)
    bare = statistics.median(times["bare python"])
    say("  " + ", ".join(f"{name} {statistics.median(each):.0f} ms" for name, each in times.items()))
    net = {name: [one - bare for one in each] for name, each in times.items()}
    rows = [[name, median(each), spread(each), median(net[name])] for name, each in times.items()]
    shown = table(["", "ms", "spread", "without bare python, ms"], rows) + "\n"
    if FASTAPI not in times:
        return shown
    compared = bar("import tinysvc to import fastapi", ratios(net["import tinysvc"], net[FASTAPI]), most=0.5)
    return f"{shown}\n{compared}\n"


def listening(options: Options) -> str:
    """Seconds from the command to the line `listening on ...`: the workers are ready by then."""
    times: dict[str, list[float]] = {name: [] for name in SERVICES}
    for number in range(options.choose(15, 1) + 1):
        for name, file in SERVICES.items():
            seconds = until_listening(file)
            if number:
                times[name].append(seconds * 1e3)
    say("  " + ", ".join(f"{name} {statistics.median(each):.0f} ms" for name, each in times.items()))
    rows = [[name, median(each), spread(each)] for name, each in times.items()]
    shown = table(["from the command to `listening on`, 2 workers ready", "ms", "spread"], rows)
    reached = bar("ms to listening, one io and one cpu route", next(iter(times.values())), most=500)
    return f"{shown}\n\n`python -m tinysvc FILE --port 0 --cpu-workers 2`\n\n{reached}\n"


def model_memory() -> str:
    """The memory of 200 MB of floats for all workers, after each worker has read them."""
    commands = {"tinysvc, a resource of each, 2 workers": tinysvc("tinysvc_big.py", "--cpu-workers", "2")}
    for shared, workers in SHARED.items():
        commands[shared] = with_environment("SHARED", 1, tinysvc("tinysvc_big.py", "--cpu-workers", workers))
    if installed("uvicorn"):
        commands["Starlette + ProcessPoolExecutor(2)"] = uvicorn("starlette_big:app")
    if installed("mosec"):
        commands["mosec, 2 workers"] = mosec("mosec_big.py")
    rows, total = [], {}
    for name, command in commands.items():
        peer = Peer(name=name, command=command, probe=("POST", "/sum", b"{}"), answer={"sum": SUM})
        with started([peer]), awake(peer):
            use_all_workers(peer)
            held = sorted((proportional(process.pid) / 1e6 for process in tree(peer.process.pid)), reverse=True)
        total[name] = sum(held)
        rows.append([name, f"{total[name]:,.0f}", ", ".join(f"{each:,.0f}" for each in held)])
        say(f"  {name}: {rows[-1][1]} MB")
    shown = table(["a model of 200 MB", "MB in all", "of each process"], rows)
    one, *_, four = (total[name] for name in SHARED)
    reached = bar("four workers that share a model to one, MB more", [four - one], most=60)
    return f"{shown}\n\nProportional set size: of memory that n processes share, each counts an n-th.\n\n{reached}\n"


def use_all_workers(peer: Peer) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: request(peer.port, "POST", "/sum", b"{}"), range(16)))


def proportional(pid: int) -> int:
    """Bytes of its processes (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def until_listening(file: str) -> float:
    begin = time.perf_counter()
    process = subprocess.Popen(
        [PYTHON, "-m", "tinysvc", file, "--port", "0", "--cpu-workers", "2"],
        cwd=HERE / "peers",
        env=ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process, process.stdout as lines:
        try:
            for line in lines:
                if line.startswith(b"listening on http://"):
                    return time.perf_counter() - begin
        finally:
            process.terminate()
    raise CannotMeasureError(f"tinysvc {file} ended with status {process.returncode} before it listened")
