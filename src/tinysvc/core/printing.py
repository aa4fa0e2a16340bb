"""What commands print for people: tables, times, and texts from elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime


def columns(rows: Sequence[Sequence[str]], finish: Callable[[str], str] = str) -> str:
    """Rows of cells as lines, each column as wide as its widest cell. `finish` is called for each padded cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return "\n".join("  ".join(map(finish, line)).rstrip() for line in lines)


def printable(text: str) -> str:
    """The text without control characters: it may come from a client, and could change the terminal."""
    return "".join(each if each.isprintable() else "?" for each in text)


def local_time(seconds: float | None) -> str:
    """A time of the clock, in the time zone of the reader; "" for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to a reader that may have enough, such as `head`."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # Python would flush again at its end
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
