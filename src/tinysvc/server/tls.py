"""TLS: the context of a server, and reloading of its certificate.

TLS 1.2 and later, with the ciphers that OpenSSL and the system choose; ALPN offers http/1.1 (a client that offers only
others goes on without it, as Python's ssl cannot send the alert of RFC 7301, 3.2; its HTTP/2 preface is then refused
with 505). No compression (CRIME), no renegotiation.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

from ..core.errors import ConfigurationError
from ..core.settings import Settings


class Certificates:
    """The TLS context of all sockets of a server. Each handshake uses the certificate that `reload` has read last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._latest = self.context = _context(settings)
        self.context.sni_callback = self._use_latest

    def reload(self) -> None:
        """Read the files again, for new connections. After a ConfigurationError the old ones stay in use."""
        self._latest = _context(self._settings)

    def _use_latest(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called at the start of every handshake, with or without a server name of the client."""
        connection.context = self._latest


def certificates(settings: Settings) -> Certificates | None:
    """None without `ssl_cert`. ConfigurationError for a wrong file, with the remedy."""
    return Certificates(settings) if settings.ssl_cert else None


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, settings.ssl_cert, settings.ssl_key)
    if settings.ssl_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, settings.ssl_ca)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _check_readable("ssl_cert", certificate)
    if key:
        _check_readable("ssl_key", key)
    place = key or certificate

    def refuse() -> NoReturn:
        raise ConfigurationError(
            f"the private key in {place} is encrypted; decrypt it, as in: openssl pkey -in {place}"
        )

    try:
        context.load_cert_chain(certificate, key or None, refuse)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            text = f"the private key in {place} does not belong to the certificate in {certificate}"
            raise ConfigurationError(f"{text}; name the one that was made with it as ssl_key") from None
        text = f"ssl_cert {certificate} and ssl_key {place} must hold a certificate and its private key, in PEM form"
        raise ConfigurationError(f"{text}: {error.reason or error}") from None


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _check_readable("ssl_ca", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"ssl_ca {path} must hold certificates in PEM form: {error.reason or error}") from None


def _check_readable(option: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"{option} {path} cannot be read: {error.strerror}") from None
