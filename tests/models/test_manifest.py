"""models/manifest.py: a manifest survives its encoding, and a damaged or hostile one is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysvc.models.alias_entries import current_time
from tinysvc.models.errors import VersionRefused
from tinysvc.models.manifest import Manifest, ManifestFile, Signature, decode_manifest

FILE = ManifestFile("weights.bin", 3, "ab" * 32)
MANIFEST = Manifest("churn", 7, "ada", current_time(), {"auc": 0.91}, (FILE,), "nonce", Signature("key", "value"))

text = st.text(st.characters(codec="utf-8"), max_size=5)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(text, json_values, max_size=4))
def test_manifest_survives_its_encoding(meta: dict[str, Any]) -> None:
    manifest = replace(MANIFEST, meta=meta)
    decoded = decode_manifest("churn", 7, manifest.encode())
    assert decoded == manifest
    assert decoded.signature == manifest.signature
    assert decoded.digest == manifest.digest


def test_digest_covers_everything_but_the_signature() -> None:
    assert replace(MANIFEST, signature=None).digest == MANIFEST.digest
    changes: list[dict[str, Any]] = [
        {"name": "other"},
        {"version": 8},
        {"by": "eve"},
        {"at": 0.0},
        {"meta": {}},
        {"nonce": ""},
        {"files": (replace(FILE, sha256="cd" * 32),)},
    ]
    digests = {replace(MANIFEST, **change).digest for change in changes}
    assert len(digests) == len(changes)
    assert MANIFEST.digest not in digests


def changed(**members: Any) -> bytes:
    return json.dumps(json.loads(MANIFEST.encode()) | members).encode()


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\0b",
        "a\nb",
        "\ud800",
        "a" * 1001,
        "a/" + "\u00e9" * 128,
    ],
)
def test_path_that_leaves_the_folder_is_refused(path: str) -> None:
    content = changed(files=[{"path": path, "size": 3, "sha256": "ab" * 32}])
    with pytest.raises(VersionRefused, match="damaged: the path"):
        decode_manifest("churn", 7, content)


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a", "a/b"), ("a/b/c", "a")])
def test_paths_that_exclude_each_other_are_refused(first: str, second: str) -> None:
    content = changed(files=[{"path": path, "size": 3, "sha256": "ab" * 32} for path in (first, second)])
    with pytest.raises(VersionRefused, match="damaged: the path"):
        decode_manifest("churn", 7, content)


@pytest.mark.parametrize(
    "members",
    [
        {"format": 2},
        {"version": True},
        {"version": "7"},
        {"name": 7},
        {"at": "2026-01-01T00:00:00"},
        {"at": "2026-01-01T00:00:00+01:00"},
        {"at": 7},
        {"meta": []},
        {"files": []},
        {"files": {}},
        {"files": [{"path": "a", "size": -1, "sha256": "ab" * 32}]},
        {"files": [{"path": "a", "size": 1.0, "sha256": "ab" * 32}]},
        {"files": [{"path": "a", "size": 1, "sha256": "../" * 21 + "a"}]},
        {"signature": {}},
        {"signature": "yes"},
        {"by": "\ud800"},
        {"meta": {"text": "\ud800"}},
        {"signature": {"key": "a", "value": "\ud800"}},
        {"meta": json.loads('{"a":' * 101 + "7" + "}" * 101)},
    ],
    ids=lambda members: ascii(members)[:40],
)
def test_impossible_member_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(VersionRefused, match="damaged"):
        decode_manifest("churn", 7, changed(**members))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_number_that_is_no_json_is_refused(number: str) -> None:
    with pytest.raises(VersionRefused, match="damaged"):
        decode_manifest("churn", 7, MANIFEST.encode().replace(b"0.91", number.encode()))


def test_member_that_is_there_twice_is_refused() -> None:
    content = MANIFEST.encode().replace(b'"by":', b'"version": 7, "by":')
    with pytest.raises(VersionRefused, match="twice"):
        decode_manifest("churn", 7, content)


@pytest.mark.parametrize(("name", "version"), [("churn", 8), ("other", 7)])
def test_manifest_of_another_version_is_refused(name: str, version: int) -> None:
    with pytest.raises(VersionRefused, match="is that of churn@7"):
        decode_manifest(name, version, MANIFEST.encode())
