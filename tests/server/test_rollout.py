"""Rolling restarts under load lose no request: behind nginx, and behind a balancer that learns of the end late."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RATE = 60


@pytest.fixture
def rolling(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that the benchmark uses, too."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("rolling")


def test_no_request_fails_behind_nginx(rolling: Any) -> None:
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("nginx is not installed")
    with rolling.replicas_of(sys.executable, 2, 1.0) as replicas, rolling.nginx(replicas) as port:
        with rolling.Clients(lambda: port, RATE) as clients:
            rolling.restart_each(replicas[:1])
        assert clients.failures == {}
        assert clients.count > 0


def test_no_request_fails_while_a_balancer_still_sends_connections(rolling: Any) -> None:
    """As in Kubernetes, whose nodes learn some time after SIGTERM that a pod ends."""
    with rolling.replicas_of(sys.executable, 2, 1.5) as replicas:
        endpoints = rolling.Endpoints(replicas, lag=0.5)
        with rolling.Clients(endpoints.choose, RATE) as clients:
            rolling.restart_each(replicas[:1], endpoints)
        assert clients.failures == {}
