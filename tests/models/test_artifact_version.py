"""artifact_version.py: a worker loads it, and nothing else of the model store."""

from __future__ import annotations

import pickle
import subprocess
import sys

from tinysvc.models.artifact_version import ArtifactVersion

VERSION = ArtifactVersion("churn", 8, "/copies/churn/8", "d8", {"auc": 0.91})


def test_version_travels_to_a_worker() -> None:
    assert pickle.loads(pickle.dumps(VERSION)) == VERSION
    assert VERSION.label == "churn@8"


def test_worker_does_not_load_the_store() -> None:
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read()); print('tinysvc.models.store' in sys.modules)"
    sent = pickle.dumps(VERSION)
    found = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, timeout=60, check=True)
    assert found.stdout == b"False\n"
