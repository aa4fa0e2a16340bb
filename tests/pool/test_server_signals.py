"""server_signals.py: a process that leaves signals to the server is not ended by them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, signal
from tinysvc.pool.server_signals import SERVER_SIGNALS, leave_signals_to_server, signals_left_to_server
assert signals_left_to_server() == []
signal.pthread_sigmask(signal.SIG_BLOCK, SERVER_SIGNALS)
leave_signals_to_server()
for number in SERVER_SIGNALS:
    os.kill(os.getpid(), number)
assert signals_left_to_server() == list(SERVER_SIGNALS)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
assert signal.SIGHUP not in signals_left_to_server()
print(os.popen("kill -TERM $$; echo survived").read() or "ended")
"""


def test_signals_are_ignored_but_not_in_programs_that_the_process_starts() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "ended\n"
