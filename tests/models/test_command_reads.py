"""models/command_reads.py: list, show and verify."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from models_console import ModelsConsole, console
from tinysvc.models.layout import manifest_key
from tinysvc.models.store import ModelStore

__all__ = ["console"]


def test_artifacts_with_their_aliases(console: ModelsConsole) -> None:
    for name, alias in (("churn", "production"), ("churn", "staging"), ("fraud", "")):
        console.publish(name, alias=alias)
    assert console.run("list").splitlines() == [
        "NAME   VERSIONS  NEWEST  ALIASES",
        "churn  2         2       production=1 staging=2",
        "fraud  1         1",
    ]
    assert console.documents("list") == [
        {"name": "churn", "versions": [1, 2], "aliases": {"production": 1, "staging": 2}},
        {"name": "fraud", "versions": [1], "aliases": {}},
    ]


def test_empty_store(console: ModelsConsole) -> None:
    console.folder.mkdir()
    assert console.run("list") == f"{console.folder} has no artifacts yet"
    assert console.documents("list") == []
    assert console.run("verify") == f"{console.folder} has no versions"
    assert console.run("list", "churn") == f"tinysvc: {console.folder} has no churn; it has: no artifacts"
    assert console.status == 1


def test_versions_the_newest_first(console: ModelsConsole) -> None:
    console.publish(alias="production", meta={"auc": 0.9, "note": "x" * 100}, by="ada")
    console.publish(content="w" * 2000, by="gr\x1bace" + "!" * 100)
    head, second, first = console.run("list", "churn").splitlines()
    assert head.split() == ["VERSION", "ALIASES", "SIZE", "PUBLISHED", "BY", "META"]
    assert second.split()[:3] == ["2", "2.0", "KiB"]
    assert second.endswith(f"gr?ace{'!' * 23}...")
    assert first.split()[:4] == ["1", "production", "7", "B"]
    assert first.endswith("...")
    newest, oldest = console.documents("list", "churn")
    assert (newest["version"], newest["aliases"], newest["size"]) == (2, [], 2000)
    assert (oldest["version"], oldest["aliases"], oldest["by"]) == (1, ["production"], "ada")


def test_damaged_version_is_listed_as_refused(console: ModelsConsole) -> None:
    console.publish()
    console.store.storage.create(manifest_key("churn", 2), b"{}")
    assert "refused: the manifest of churn@2 is damaged" in console.run("list", "churn").splitlines()[1]
    assert "damaged" in console.documents("list", "churn")[0]["refused"]
    assert "the manifest of churn@2 is damaged" in console.run("show", "churn")
    assert console.status == 1


def test_version_with_its_files_and_meta_data(console: ModelsConsole) -> None:
    console.publish(alias="production", meta={"auc": 0.9, "data": {"rows": 12}}, by="ada")
    text = console.run("show", "churn")
    facts = dict(line.split("  ", 1) for line in text.splitlines()[:7])
    assert facts["version"].strip() == "churn@1"
    assert facts["aliases"].strip() == "production"
    assert facts["published"].endswith("by ada")
    assert facts["size"].strip() == "7 B in 1 file"
    assert facts["meta data"].strip() == '{"rows": 12}'
    assert text.splitlines()[-1].split()[-1] == "weights.txt"
    [document] = console.documents("show", "churn@1")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert document["files"] == [{"path": "weights.txt", "size": 7, "sha256": digest}]
    assert (document["signed_with"], document["meta"]) == (None, {"auc": 0.9, "data": {"rows": 12}})


def test_alias_with_its_moves(console: ModelsConsole) -> None:
    for content in ("a", "b"):
        console.publish(content=content, alias="production", by="ada")
    console.store.rollback("churn", "production", by="grace")
    moves = console.run("show", "churn@production").splitlines()[-4:]
    assert moves[0].split() == ["@production", "SINCE", "BY"]
    assert [(line.split()[0], *line.split()[3:]) for line in moves[1:]] == [
        ("1", "grace", "rollback"),
        ("2", "ada"),
        ("1", "ada"),
    ]
    [document] = console.documents("show", "churn@production")
    assert [(each["version"], each["restores"]) for each in document["moves"]] == [(1, 0), (2, 0), (1, 1)]
    assert "moves" not in console.documents("show", "churn@1")[0]


def test_unknown_artifact_is_named_with_those_that_exist(console: ModelsConsole) -> None:
    console.publish("fraud")
    assert console.run("show", "churn") == f"tinysvc: {console.folder} has no churn; it has: fraud"
    assert console.status == 1


def test_verification_reads_every_byte(console: ModelsConsole) -> None:
    console.publish(alias="production")
    console.publish(content="other")
    console.publish("fraud")
    assert console.run("verify").splitlines() == [
        "churn@1  whole",
        "churn@2  whole",
        "fraud@1  whole",
        "3 versions read, 0 damaged",
    ]
    [blob] = [path for path in (console.folder / "churn" / "blobs").iterdir() if path.read_text() == "other"]
    blob.chmod(0o600)
    blob.write_text("OTHER")
    lines = console.run("verify", "churn").splitlines()
    assert lines[1].startswith("churn@2  weights.txt: it has the SHA-256 ")
    assert (lines[2], console.status) == ("2 versions read, 1 damaged", 1)
    assert console.run("verify", "churn@production").endswith("1 version read, 0 damaged")
    faults = [each["faults"] for each in console.documents("verify")]
    assert ([bool(each) for each in faults], console.status) == ([False, True, False], 1)


def test_version_that_is_swept_meanwhile_is_left_out(console: ModelsConsole, monkeypatch: pytest.MonkeyPatch) -> None:
    console.publish()
    (console.folder / "churn" / "1.json").unlink()
    monkeypatch.setattr(ModelStore, "versions", lambda store, name: [1])
    assert console.run("list", "churn").splitlines() == ["VERSION  ALIASES  SIZE  PUBLISHED  BY  META"]
    assert console.run("verify", "churn") == f"{console.folder} has no versions"
    console.run("verify", "churn@1")
    assert console.status == 1


def test_untrusted_version_is_refused(console: ModelsConsole, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key, secret, public = Ed25519PrivateKey.generate(), tmp_path / "signing.pem", tmp_path / "trusted.pem"
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    console.publish()
    (tmp_path / "weights.txt").write_text("weights")
    console.run("publish", "churn", str(tmp_path / "weights.txt"), "--models-signing-key", str(secret))
    signed, unsigned = console.run("list", "churn", "--models-keys", str(public)).splitlines()[1:]
    assert "refused" not in signed
    assert "refused: churn@1 has no signature" in unsigned
    assert "signed with" in console.run("show", "churn", "--models-keys", str(public))
