"""Functions that log, print and crash, in a pool or in their own processes."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from jobs import segfault
from tinysvc.core.request_context import request_id, route_name
from tinysvc.pool import standard_streams
from tinysvc.pool.crash_reports import enable_crash_reports
from tinysvc.pool.standard_streams import write_whole_lines
from tinysvc.pool.worker_logs import forward_logs


def log_and_print(text: str) -> None:
    """Like a handler: write one record, one traceback, and one line on each stream."""
    token = route_name.set("POST /predict"), request_id.set("5f-1")
    try:
        logging.getLogger("shop.model").warning("slow %s", text)
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("shop.model").exception("no %s", text)
    finally:
        route_name.reset(token[0])
        request_id.reset(token[1])
    print("print", text)
    print("error", text, file=sys.stderr)


def predict() -> None:
    segfault()


def print_and_wait(text: str) -> None:
    print(text, end="")
    threading.Event().wait()


def forward_like_a_worker(folder: str) -> None:
    """Configure logging in the usual ways of authors, and print the names of forwarded records."""
    file = logging.FileHandler(Path(folder, "log"))
    logging.basicConfig(
        level=logging.DEBUG, handlers=[logging.StreamHandler(), logging.StreamHandler(sys.stdout), file]
    )
    for name, propagate in (("loud", True), ("apart", False), ("silent", False)):
        logging.getLogger(name).propagate = propagate
        if name != "silent":
            logging.getLogger(name).addHandler(logging.StreamHandler())
    del file
    sent: list[Any] = []
    forward_logs(sent.append, logging.INFO)
    for name in ("", "loud", "apart", "silent", "loud.below"):
        logging.getLogger(name).info("said")
        logging.getLogger(name).debug("below the level")
    print([fields.name for fields in sent])


def print_lines(name: str, count: str) -> None:
    """Print lines in pieces. No line gets old, however slow this machine is."""
    standard_streams.OLD_TEXT = 3600.0
    write_whole_lines()
    for number in range(int(count)):
        print(name, number, "x" * (number * 19 % 3000), end=" end\n")
    sys.stdout.flush()


def print_to_closed_descriptors() -> None:
    write_whole_lines()
    os.close(1)
    print("to no reader")
    sys.stdout.close()
    print("to no reader again", flush=True)
    print("still here", file=sys.stderr)


def keep_other_streams() -> None:
    """The author has replaced stdout; stderr was closed at the start of the process."""
    mine = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = None
    write_whole_lines()
    assert sys.stdout is mine
    assert sys.stderr is None
    mine.close()
    assert sys.__stdout__ is not None
    sys.__stdout__.write("kept\n")


def crash(descriptor: str) -> NoReturn:
    """Crash in a forked child, like a worker; the parent prints the exit code."""
    child = os.fork()
    if not child:
        enable_crash_reports(int(descriptor))
        predict()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)
