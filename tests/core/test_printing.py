"""core/printing.py: tables, times and texts that commands print."""

from __future__ import annotations

import subprocess
import sys

from tinysvc.core.printing import columns, local_time, printable


def test_columns_are_as_wide_as_their_widest_cells() -> None:
    assert columns([("a", "bb", ""), ("ccc", "d", "e")]) == "a    bb\nccc  d   e"


def test_cells_are_finished_after_they_are_padded() -> None:
    assert columns([("a", "b"), ("cc", "d")], lambda cell: f"<{cell}>") == "<a >  <b>\n<cc>  <d>"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[31m\nü") == "a?[31m?ü"


def test_no_time_has_no_text() -> None:
    assert local_time(None) == ""
    assert local_time(0.5)[:3] in ("197", "196")


def test_reader_that_ends_early_is_no_error() -> None:
    code = "from tinysvc.core.printing import print_lines; print_lines(str(n) for n in range(100_000))"
    reading = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reading.stdout is not None
    assert reading.stderr is not None
    assert reading.stdout.readline() == b"0\n"
    reading.stdout.close()
    assert reading.stderr.read() == b""
    reading.stderr.close()
    assert reading.wait(30) == 0
