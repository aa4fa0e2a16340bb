"""System calls that the operating system has refused, as sentences with a remedy."""

from __future__ import annotations

import errno

_REMEDIES = {
    errno.EAGAIN: "raise the limit of processes (pids.max of the container, or ulimit -u)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files: the whole machine has too many open",
    errno.ENOMEM: "give it more memory",
    errno.ENOSPC: "free some space",
}


def describe_os_error(call: str, error: OSError) -> str:
    """The end of a sentence: which call failed, why, and the usual remedy if there is one."""
    remedy = _REMEDIES.get(error.errno or 0, "")
    return f"{call} failed: {error.strerror or error}" + (f"; {remedy}" if remedy else "")
