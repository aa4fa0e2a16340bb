"""Processes that call one function of log_jobs, and their output."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from paths import SUPPORT


def start_process(call: str, **options: Any) -> subprocess.Popen[str]:
    """A process that calls a function of log_jobs."""
    code = f"import log_jobs; log_jobs.{call}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=SUPPORT, text=True, **options)


def run_process(call: str, **options: Any) -> tuple[str, str]:
    """The standard output and error of such a process, which must end with status 0."""
    with start_process(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as child:
        written = child.communicate()
    assert child.returncode == 0, written
    return written
