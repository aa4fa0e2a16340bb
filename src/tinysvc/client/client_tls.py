"""TLS of calls to other services: the callee's certificate is always verified."""

from __future__ import annotations

import ssl

from ..core.errors import ConfigurationError


def client_context(authorities: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """The TLS context of all calls: TLS 1.2 and later, HTTP/1.1 by ALPN, with verification of names.

    Args:
        authorities: File with the authorities that callees' certificates are checked against (PEM); empty: the
            system's.
        certificate: File with our certificate for callees that ask for one (PEM, with its chain).
        key: File with its private key, if it is not in the same file.

    Raises:
        ConfigurationError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=authorities or None)
    except (OSError, ssl.SSLError) as error:
        text = f"services_ca {authorities} must be a readable file with certificates in PEM form"
        raise ConfigurationError(f"{text}: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None, lambda: "")
        except (OSError, ssl.SSLError) as error:
            text = f"services_cert {certificate} and services_key {key or certificate} must hold a certificate"
            raise ConfigurationError(
                f"{text} and its private key, unencrypted, in PEM form: {_reason(error)}"
            ) from None
    return context


def _reason(error: OSError) -> str:
    return (error.reason if isinstance(error, ssl.SSLError) else None) or error.strerror or str(error)
