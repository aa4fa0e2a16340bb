"""core/exit_with_parent.py: the kernel ends a process whose parent has ended."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals that the other end of a socket has closed")
@pytest.mark.parametrize("when", ["before", "after"])
def test_process_dies_when_other_end_closes(when: str) -> None:
    code = (
        "import socket, sys, time\nfrom tinysvc.core.exit_with_parent import exit_with_parent\n"
        "server, control = socket.socketpair()\n"
        "if sys.argv[1] == 'before': server.close()\nexit_with_parent(control, True)\nserver.close()\ntime.sleep(30)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, when], timeout=20, check=False)
    assert ended.returncode == -signal.SIGIO
