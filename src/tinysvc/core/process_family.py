"""The server processes of one start: those that one supervisor has forked, and their replacements."""

from __future__ import annotations

from functools import cache
from secrets import token_hex


@cache
def family() -> str:
    """The same text in all processes of this start of the server, and in no other process.

    The first call decides it: a supervisor makes it before it forks.
    """
    return token_hex(8)
