"""The speed of the store of models: publish and fetch 1 GB, beside a plain copy that hashes while it copies."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from harness import ENVIRON, HERE, PYTHON, CannotMeasureError, Options, bar, median, ratios, say, spread, table

STEPS = {
    "copy": "a plain copy that hashes: read, SHA-256, write, fsync",
    "publish": "publish: from the file in the folder of the version to the end of the block",
    "fetch": "fetch: from the store to a verified local copy",
}
PIECE = 1_000_000


def store_speed(options: Options) -> str:
    """Three steps with the same bytes, again and again with others: the store would know equal ones."""
    megabytes = options.choose(1000, 100)
    results: dict[str, list[float]] = {step: [] for step in STEPS}
    for number in range(options.choose(5, 2)):
        with tempfile.TemporaryDirectory(prefix="bench-store-") as name:
            source = Path(name) / "weights.bin"
            with source.open("wb") as file:
                for _ in range(megabytes):
                    file.write(os.urandom(PIECE))
            (work := Path(name) / "work").mkdir()
            command = [PYTHON, "store_speed.py", str(work), str(source)]
            ran = subprocess.run(command, cwd=HERE / "peers", env=ENVIRON, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise CannotMeasureError(f"the store: {ran.stderr[-500:]}")
            for step, seconds in json.loads(ran.stdout).items():
                results[step].append(megabytes / seconds)
        say(f"  round {number + 1}: " + ", ".join(f"{step} {rates[-1]:,.0f} MB/s" for step, rates in results.items()))
    compared = {step: ratios(rates, results["copy"]) for step, rates in results.items()}
    rows = [
        [STEPS[step], median(rates), spread(rates), median(compared[step], "{:.2f}"), spread(compared[step], "{:.2f}")]
        for step, rates in results.items()
    ]
    bars = [bar(f"{step} of {megabytes} MB to a plain copy that hashes", compared[step], least=0.6) for step in STEPS]
    heading = [f"{megabytes} MB in one file, local folders", "MB/s", "spread", "of the copy", "spread"]
    return f"{table(heading, rows)}\n\n" + "\n".join(bars[1:]) + "\n"
