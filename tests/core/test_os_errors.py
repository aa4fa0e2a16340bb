"""core/os_errors.py: a refused system call becomes a sentence with a remedy."""

from __future__ import annotations

import errno
import os

import pytest

from tinysvc.core.os_errors import describe_os_error


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EMFILE, "; raise the limit of open files (ulimit -n)"),
        (errno.EAGAIN, "; raise the limit of processes (pids.max of the container, or ulimit -u)"),
        (errno.ECONNREFUSED, ""),
    ],
)
def test_sentence_names_call_reason_and_remedy(number: int, remedy: str) -> None:
    reason = os.strerror(number)
    assert describe_os_error("fork", OSError(number, reason)) == f"fork failed: {reason}{remedy}"


def test_error_without_a_number_keeps_its_text() -> None:
    assert describe_os_error("fork", OSError("no luck")) == "fork failed: no luck"
