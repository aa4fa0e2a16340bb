"""Signatures of manifests: ed25519 (RFC 8032), by the library `cryptography`, which is loaded on demand.

The signature covers the name, the version and the hash of each file: a signed version cannot be offered under another
name or number. It does not cover aliases: a person who can write to the store may let an alias name an older version.

Keys are files: PEM, as OpenSSL writes them, or the format of OpenSSH.

    openssl genpkey -algorithm ed25519 -out signing.pem
    openssl pkey -in signing.pem -pubout -out trusted.pem
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ConfigurationError
from ..core.optional_libraries import missing_library
from .errors import VersionRefused
from .manifest import Manifest, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_CONTEXT = b"tinysvc manifest 1\n"
"""In front of the signed content: a signature that was made for another purpose does not fit."""
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----|^ssh-\S+ \S+.*$", re.DOTALL | re.MULTILINE)


class SigningKey:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._id = _key_id(key.public_key())

    def sign(self, manifest: Manifest) -> Manifest:
        """The manifest with its signature."""
        value = self._key.sign(_CONTEXT + manifest.signed_content())
        return replace(manifest, signature=Signature(self._id, base64.b64encode(value).decode()))


class TrustedKeys:
    """The public keys whose signatures count. Without a key, every version is accepted, signed or not."""

    def __init__(self, keys: Iterable[Ed25519PublicKey] = ()) -> None:
        self._keys = {_key_id(key): key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, manifest: Manifest) -> None:
        """Check that a trusted key has signed the manifest.

        Raises:
            VersionRefused: There is no such signature.
        """
        if not self._keys:
            return
        if manifest.signature is None:
            raise VersionRefused(f"{manifest.label} has no signature; the trusted keys (models_keys) demand one")
        key = self._keys.get(manifest.signature.key)
        if key is None:
            known = ", ".join(self._keys)
            raise VersionRefused(
                f"{manifest.label} is signed with the key {manifest.signature.key[:40]!r}, none of the "
                f"trusted keys (models_keys): {known}"
            )
        from cryptography.exceptions import InvalidSignature

        try:
            value = base64.b64decode(manifest.signature.value, validate=True)
            key.verify(value, _CONTEXT + manifest.signed_content())
        except (InvalidSignature, ValueError) as error:
            raise VersionRefused(f"the signature of {manifest.label} is wrong: its manifest was changed") from error


def load_signing_key(file: Path) -> SigningKey:
    """Read a private key without a password.

    Raises:
        ConfigurationError: The file is not such a key, or the library is missing.
    """
    content = _read(file, "the signing key")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    openssh = b"OPENSSH" in content[:100]
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(
            f"{file} is no private key without a password ({error}); make one with: {_MAKE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{file} is not an ed25519 key; {_MAKE}")
    return SigningKey(key)


_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out signing.pem"


def load_trusted_keys(files: Iterable[Path]) -> TrustedKeys:
    """Read public keys. A file may have several of them.

    Raises:
        ConfigurationError: A file has no such key, or the library is missing.
    """
    return TrustedKeys([key for file in files for key in _public_keys(file)])


def _public_keys(file: Path) -> list[Ed25519PublicKey]:
    content = _read(file, "a trusted key")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found: list[Ed25519PublicKey] = []
    for text in _PEM.findall(content):
        openssh = text.startswith(b"ssh-")
        load = serialization.load_ssh_public_key if openssh else serialization.load_pem_public_key
        try:
            key = load(text)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"{file} has a damaged public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{file} has a public key that is not of the type ed25519")
        found.append(key)
    if not found:
        raise ConfigurationError(
            f"{file} has no public key; write it with: openssl pkey -in signing.pem -pubout -out trusted.pem"
        )
    return found


def _read(file: Path, what: str) -> bytes:
    if missing := missing_library("cryptography"):
        raise ConfigurationError(missing)
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be read: {file}: {error.strerror}") from error


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
