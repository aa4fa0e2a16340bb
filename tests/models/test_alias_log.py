"""models/alias_log.py: entries of an alias, and what a rollback restores."""

from __future__ import annotations

import pytest

from tinysvc.models.alias_entries import AliasEntry, current_time
from tinysvc.models.alias_log import decode_entry, encode_entry, previous_entry
from tinysvc.models.errors import VersionRefused


def log_of(*moves: int | tuple[int, int]) -> list[AliasEntry]:
    """A log from versions, and from (version, restored entry) for rollbacks."""
    entries = [move if isinstance(move, tuple) else (move, 0) for move in moves]
    return [
        AliasEntry(version, "", 0.0, number, restores) for number, (version, restores) in enumerate(entries, start=1)
    ]


@pytest.mark.parametrize("restores", [0, 11])
def test_entry_survives_its_encoding(restores: int) -> None:
    entry = AliasEntry(7, "ada@build", current_time(), 12, restores)
    assert decode_entry("churn@production", 12, encode_entry(entry, "nonce")) == entry


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"7",
        b"{}",
        b'{"version": 7}',
        b'{"version": 0, "at": "2026-01-01T00:00:00Z"}',
        b'{"version": true, "at": "2026-01-01T00:00:00Z"}',
        b'{"version": 7, "at": "2026-01-01T00:00:00"}',
        b'{"version": 7, "at": "now"}',
        b'{"version": 7, "at": "2026-01-01T00:00:00Z", "by": 8}',
        b'{"version": 7, "at": "2026-01-01T00:00:00Z", "restores": 12}',
    ],
)
def test_damaged_entry_is_refused(content: bytes) -> None:
    with pytest.raises(VersionRefused, match="entry 12 of churn@production is damaged"):
        decode_entry("churn@production", 12, content)


@pytest.mark.parametrize(
    ("moves", "number"),
    [
        ([], None),
        ([1], None),
        ([1, 2], 1),
        ([1, 2, 2], 1),
        ([1, 2, 3], 2),
        ([1, 2, 3, (2, 2)], 1),
        ([1, 2, 3, (2, 2), (1, 1)], None),
        ([1, 2, 3, (2, 2), 4], 2),
        ([1, 2, 3, (2, 2), 4, (2, 2)], 1),
        ([1, 2, 1], 2),
    ],
)
def test_rollback_restores_the_move_before(moves: list[int | tuple[int, int]], number: int | None) -> None:
    found = previous_entry(log_of(*moves))
    assert (found and found.number) == number


def test_rollback_after_the_sweep_of_the_restored_entry() -> None:
    log = log_of(1, 2, 3, (2, 2), 4)[3:]
    found = previous_entry(log)
    assert found is not None
    assert found.version == 2
