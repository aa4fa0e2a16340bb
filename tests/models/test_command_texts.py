"""models/command_texts.py: sizes, counts and meta data for people."""

from __future__ import annotations

import json

import pytest

from tinysvc.models.alias_entries import AliasEntry
from tinysvc.models.command_texts import (
    alias_sentence,
    counted,
    json_line,
    meta_text,
    names_of,
    size_text,
    swept_lines,
    value_text,
)
from tinysvc.models.retention import Swept


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_500_000, "1.4 MiB"), (5 * 2**30, "5.0 GiB")],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


def test_counts() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert counted(2, "entry", "entries") == "2 entries"


def test_values_are_texts_or_json() -> None:
    assert [value_text(each) for each in ("ü", 0.5, None, ["ü"])] == ["ü", "0.5", "null", '["ü"]']
    assert meta_text({"auc": 0.9, "note": "good"}) == "auc=0.9 note=good"
    assert len(meta_text({"note": "x" * 100})) == 60
    assert json.loads(json_line({"ü": 1})) == {"ü": 1}


def test_aliases_of_a_version() -> None:
    aliases = {"staging": AliasEntry(2, "", 0.0, 1), "production": AliasEntry(1, "", 0.0, 1)}
    assert names_of(aliases) == ["production=1", "staging=2"]
    assert names_of(aliases, 2) == ["staging"]
    assert alias_sentence("churn", "staging", aliases["staging"])[-3:] != " by"


def test_sweep_for_people() -> None:
    swept = Swept(["churn@1"], 2048, 1024, 1, ["/a", "/b"], ["churn: damaged\x1b"])
    assert list(swept_lines(swept, as_json=False, dry_run=False)) == [
        "set aside 1 version (churn@1) and 2.0 KiB of files",
        "removed 1.0 KiB of what was set aside before, 1 old entry of an alias, 2 folders of killed publishers",
        "skipped: churn: damaged?",
    ]
    would, removed = list(swept_lines(Swept(), as_json=False, dry_run=True))
    assert would == "would set aside 0 versions and 0 B of files"
    assert removed.startswith("would remove 0 B")
