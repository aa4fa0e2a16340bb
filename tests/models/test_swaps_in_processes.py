"""Two server processes: they swap one after the other, share what failed, and a new one does not repeat it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx

from commands import Served, served
from paths import SUPPORT
from swap_pools import publish, store_in
from system import wait_until

CHURN = "churn@production"


def statuses(server: Served) -> dict[int, dict[str, Any]]:
    """The artifact of each server process, by process id. For each connection, the kernel chooses the process."""
    found = {}
    for _ in range(12):
        with httpx.Client(base_url=server.url, timeout=20) as client:
            found[client.get("/process").json()] = client.get("/readyz").json()["artifacts"][CHURN]
    return found


def test_processes_swap_one_after_the_other_and_share_what_failed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    publish(store, content="1")
    log = tmp_path / "log"
    options = ["--workers", "2", "--cpu-workers", "2", "--models", str(tmp_path / "models"), "--models-interval", "0.2"]
    app = str(SUPPORT / "models_app.py")
    with served("-m", "tinysvc", app, "--port", "0", *options, cwd=tmp_path, MODELS_LOG=str(log)) as server:

        def pids_with(version: int) -> set[int]:
            lines = [line.split() for line in log.read_text().splitlines()]
            return {int(pid) for pid, number in lines if number == str(version)}

        wait_until(lambda: len(pids_with(1)) == 2, "both have opened version 1")
        publish(store, content="901")  # its check fails
        problem = "churn@1 stays"

        def both_know() -> bool:
            found = statuses(server)
            return len(found) == 2 and all(problem in each.get("problem", "") for each in found.values())

        wait_until(both_know, "both name the trouble", 60)
        assert len(pids_with(901)) == 1  # the other one did not try it
        killed = min(statuses(server))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in (found := statuses(server)) and len(found) == 2, "it is replaced", 60)
        assert {each["version"] for each in statuses(server).values()} == {1}
        assert len(pids_with(901)) == 1  # nor did its successor
        publish(store, content="3")
        wait_until(
            lambda: [each["version"] for each in statuses(server).values()] == [3, 3], "both serve version 3", 60
        )
        assert len(pids_with(3)) == 2
