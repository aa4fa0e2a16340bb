"""`kill -9` at each step of a publication, a move, a sweep and a fetch: see tests/support/models_killed.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from paths import ROOT

EXPECTED = {
    "publish": [
        "fsync models/.publishing/#/sub/weights.bin",
        "link models/churn/blobs/#",
        "link models/churn/5.json",
        "link models/churn/aliases/production/2.json",
    ],
    "move": ["link models/churn/aliases/production/2.json"],
    "sweep": [
        "link models/churn/swept/1.json.#",
        "unlink models/churn/1.json",
        "unlink models/churn/swept/1.json.#",
        "link models/churn/swept/blobs/#.#",
        "unlink models/churn/blobs/#",
        "unlink models/churn/swept/blobs/#.#",
    ],
    "fetch": ["fsync copies/.fetching/#/files/sub/weights.bin", "rename copies/churn/2-#"],
}
"""The steps that matter most, in their order. There is a kill before every other one, too."""


@pytest.mark.parametrize("work", EXPECTED)
def test_kill_at_any_step_leaves_nothing_half(work: str) -> None:
    script = ROOT / "tests" / "support" / "models_killed.py"
    done = subprocess.run([sys.executable, str(script), work], capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)[1] for line in done.stdout.splitlines()]
    places = [steps.index(step) for step in EXPECTED[work]]
    assert places == sorted(places)
