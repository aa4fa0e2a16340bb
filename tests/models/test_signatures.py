"""models/signatures.py: signed versions, and keys in files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.errors import VersionRefused
from tinysvc.models.manifest import Manifest, ManifestFile, Signature, decode_manifest
from tinysvc.models.signatures import TrustedKeys, load_signing_key, load_trusted_keys

MANIFEST = Manifest("churn", 7, "ada", 0.0, {"auc": 0.91}, (ManifestFile("w", 3, "ab" * 32),), "nonce")


def pem_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def openssh_pair(folder: Path, name: str) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" ada@build\n")
    return private, public


@pytest.mark.parametrize("pair", [pem_pair, openssh_pair])
def test_signed_manifest_is_accepted(pair: object, tmp_path: Path) -> None:
    private, public = pair(tmp_path, "a")  # type: ignore[operator]
    signed = load_signing_key(private).sign(MANIFEST)
    trusted = load_trusted_keys([public])
    assert trusted
    trusted.check(decode_manifest("churn", 7, signed.encode()))


def test_one_file_may_have_several_keys(tmp_path: Path) -> None:
    first, second = pem_pair(tmp_path, "a"), openssh_pair(tmp_path, "b")
    (tmp_path / "all").write_bytes(first[1].read_bytes() + b"# the second one\n" + second[1].read_bytes())
    trusted = load_trusted_keys([tmp_path / "all"])
    for private, _ in (first, second):
        trusted.check(load_signing_key(private).sign(MANIFEST))


def test_without_keys_everything_is_accepted() -> None:
    TrustedKeys().check(MANIFEST)


def test_manifest_without_a_trusted_signature_is_refused(tmp_path: Path) -> None:
    (private, _), (_, other) = pem_pair(tmp_path, "a"), pem_pair(tmp_path, "b")
    trusted = load_trusted_keys([other])
    with pytest.raises(VersionRefused, match="churn@7 has no signature"):
        trusted.check(MANIFEST)
    with pytest.raises(VersionRefused, match="none of the trusted keys"):
        trusted.check(load_signing_key(private).sign(MANIFEST))


def test_changed_manifest_is_refused(tmp_path: Path) -> None:
    private, public = pem_pair(tmp_path, "a")
    signed, trusted = load_signing_key(private).sign(MANIFEST), load_trusted_keys([public])
    assert signed.signature is not None
    for changed in (
        replace(signed, version=8),
        replace(signed, name="fraud"),
        replace(signed, meta={"auc": 0.99}),
        replace(signed, files=(ManifestFile("w", 3, "cd" * 32),)),
        replace(signed, signature=Signature(signed.signature.key, "AAAA")),
        replace(signed, signature=Signature(signed.signature.key, "no base64 at all")),
    ):
        with pytest.raises(VersionRefused, match=r"signature of (churn@\d|fraud@7) is wrong"):
            trusted.check(changed)


def test_file_that_is_no_key_is_a_configuration_error(tmp_path: Path) -> None:
    private, public = pem_pair(tmp_path, "a")
    x25519 = X25519PrivateKey.generate()
    (tmp_path / "x").write_bytes(x25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "x.pub").write_bytes(x25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    secret = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked").write_bytes(secret)
    (tmp_path / "damaged").write_bytes(public.read_bytes().replace(b"MC", b"!!"))
    for file, message in (
        ("missing", "cannot be read"),
        ("a.pub.pem", "no private key"),
        ("x", "ed25519"),
        ("locked", "no private"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_signing_key(tmp_path / file)
    for file, message in (
        ("missing", "cannot be read"),
        ("a.pem", "no public key; .* -out trusted.pem"),
        ("x.pub", "ed25519"),
        ("damaged", "damaged"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_trusted_keys([tmp_path / file])
    assert private.exists()
