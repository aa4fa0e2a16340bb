"""Cursors of pages: the place of the last durable job of a page, in the order of acceptance."""

from __future__ import annotations

import re

_CURSOR = re.compile("[0-9]{1,18}")  # a client may send anything; larger numbers do not fit into a column

LAST = 2**63 - 1
"""A place behind all durable jobs."""


def place_of(cursor: str) -> int:
    """The place before which a page begins. ValueError if the text is no cursor."""
    if cursor and not _CURSOR.fullmatch(cursor):
        raise ValueError(f"a cursor is `next` of a page, not {cursor[:40]!r}")
    return int(cursor) if cursor else LAST
