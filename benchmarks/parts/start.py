"""How long it takes until there is something: an import, a server that listens."""

from __future__ import annotations

import statistics
import subprocess
import time

from harness import ENVIRON, HERE, PYTHON, CannotMeasureError, Options, median, say, spread, table

TITLE = "start: import and listen"

IMPORTS = {"import tinysvc": "import tinysvc", "import fastapi": "import fastapi", "bare python": "pass"}
SERVICES = {
    "one io and one cpu route": "tinysvc_small.py",
    "the same, and `import numpy`": "tinysvc_numpy.py",
}


def measure(options: Options) -> str:
    return f"{imports(options)}\n{listening(options)}"


def imports(options: Options) -> str:
    """Wall time of a whole `python -c`, in turns; bare python's median is taken off."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(options.choose(41, 9) + 1):
        for name, code in IMPORTS.items():
            begin = time.perf_counter()
            subprocess.run([PYTHON, "-c", code], check=True, cwd=HERE, env=ENVIRON)
            if number:  # the first one only fills the file cache
                times[name].append((time.perf_counter() - begin) * 1e3)
    bare = statistics.median(times["bare python"])
    say("  " + ", ".join(f"{name} {statistics.median(each):.0f} ms" for name, each in times.items()))
    base = statistics.median(times["import fastapi"]) - bare
    rows = []
    for name, each in times.items():
        net = statistics.median(each) - bare
        shown = ["", ""] if name == "bare python" else [f"{net:.0f}", f"{net / base:.2f}"]
        rows.append([name, median(each), spread(each), *shown])
    return table(["", "ms", "spread", "without bare python, ms", "ratio to fastapi"], rows) + "\n"


def listening(options: Options) -> str:
    """From the command to the line `listening on ...`; by then the workers are ready."""
    times: dict[str, list[float]] = {name: [] for name in SERVICES}
    for number in range(options.choose(15, 4) + 1):
        for name, file in SERVICES.items():
            seconds = until_listening(file)
            if number:
                times[name].append(seconds * 1e3)
    say("  " + ", ".join(f"{name} {statistics.median(each):.0f} ms" for name, each in times.items()))
    rows = [[name, median(each), spread(each)] for name, each in times.items()]
    shown = table(["from the command to `listening on`, 2 workers ready", "ms", "spread"], rows)
    return f"{shown}\n\n`python -m tinysvc FILE --port 0 --cpu-workers 2`\n"


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
