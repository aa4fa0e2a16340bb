"""An alias is a log: `churn/aliases/production/12.json` is its twelfth entry, and the highest number holds.

Each entry is created once and never changed. Two processes that move an alias at once try to create the same number:
one of them loses, and learns who won.

A rollback appends the version that held before, with the number of the entry that it restores. So a second rollback
goes one step further back, and does not return to the version that was just rolled back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from .alias_entries import AliasEntry
from .errors import VersionRefused


def encode_entry(entry: AliasEntry, nonce: str) -> bytes:
    """The content of an entry. The nonce makes the content unique: a publisher recognizes its own entry."""
    members: dict[str, Any] = {"version": entry.version, "by": entry.by, "at": entry.time, "nonce": nonce}
    if entry.restores:
        members["restores"] = entry.restores
    return json.dumps(members, indent=1, ensure_ascii=False).encode() + b"\n"


def decode_entry(label: str, number: int, content: bytes) -> AliasEntry:
    """Read an entry.

    Raises:
        VersionRefused: The content is no entry. An older entry must not be used instead: it may name a bad version.
    """
    try:
        members = json.loads(content)
        version, by, restores = members["version"], members.get("by", ""), members.get("restores", 0)
        at = datetime.fromisoformat(members["at"])
        if type(version) is not int or version < 1 or not isinstance(by, str) or at.tzinfo is None:
            raise ValueError("a member has an unexpected value")
        if type(restores) is not int or not 0 <= restores < number:
            raise ValueError("an unexpected value of restores")
        entry = AliasEntry(version, by, at.timestamp(), number, restores)
        encode_entry(entry, "")  # fails for half a surrogate pair, and for a time that is none in UTC
        return entry
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VersionRefused(f"entry {number} of {label} is damaged ({error}); move the alias to repair it") from error


def previous_entry(log: Sequence[AliasEntry]) -> AliasEntry | None:
    """The entry that a rollback restores: the last one before the current one that names another version.

    Rollbacks undo moves: what was rolled back does not count.

    Args:
        log: Entries in the order of their numbers.
    """
    moves: list[AliasEntry] = []
    for entry in log:
        if entry.restores:
            while moves and moves[-1].number > entry.restores:
                moves.pop()
        if not entry.restores or not moves:  # the sweep may have removed the entry that was restored
            moves.append(entry)
    return next((entry for entry in reversed(moves) if entry.version != moves[-1].version), None)
