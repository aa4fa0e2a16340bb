"""process_family.py: one text for all processes of a start, and another one for each start."""

from __future__ import annotations

import subprocess
import sys

from tinysvc.core.process_family import family

CODE = """
import os
from tinysvc.core.process_family import family
own = family()
if not os.fork():
    os._exit(0 if family() == own else 1)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
print(own)
"""


def test_forked_process_belongs_to_the_family_and_another_start_does_not() -> None:
    other = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert other.stdout.strip() not in ("", family())
