"""Two replicas behind nginx, restarted one after the other: no request may fail."""

from __future__ import annotations

import shutil
import time

from harness import CannotMeasureError, Options, bar, own_python, say, table
from rolling import Clients, nginx, replicas_of, restart_each

TITLE = "rollout: two replicas behind nginx are restarted in turns"

RATE = 300
"""Requests a second: io, cpu and streams in turns, on kept connections."""

DRAIN_DELAY = 1.0
"""Seconds in which nginx gets responses that close its connections. It has no other way to learn of the end."""


def measure(options: Options) -> str:
    if shutil.which("nginx", path="/usr/sbin:/usr/bin") is None:
        raise CannotMeasureError("nginx is not installed")
    rounds = options.choose(10, 2)
    rows, failed = [], {}
    for delay in (DRAIN_DELAY, 0.0):
        begin = time.monotonic()
        with (
            replicas_of(own_python(), 2, delay) as replicas,
            nginx(replicas) as port,
            Clients(lambda port=port: port, RATE) as clients,  # type: ignore[misc]
        ):
            for number in range(rounds):
                restart_each(replicas)
                say(f"  drain_delay {delay:g}: restart {number + 1} of {rounds}, {clients.failures.total()} failed")
        failed[delay] = float(clients.failures.total())
        which = ", ".join(f"{count} of {what}" for what, count in clients.failures.most_common()) or "none"
        rows.append([f"`--drain-delay {delay:g}`", f"{clients.count:,}", which, f"{time.monotonic() - begin:.0f}"])
    shown = table(["", "requests", "failed", "seconds"], rows)
    return f"{shown}\n\n{bar('failed requests with a drain delay', [failed[DRAIN_DELAY]], most=0.0)}\n"
