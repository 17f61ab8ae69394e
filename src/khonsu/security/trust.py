"""The dialling side of TLS: trust in the control plane's own authority and in nobody else."""

from __future__ import annotations

import ssl


def client_context(ca_pem: str) -> ssl.SSLContext:
    """Return a context for connections to a control plane whose authority is known.

    TLS 1.3; the certificate must be signed by this authority, for the name that was dialled, and is verified strictly
    (as Python does by default from 3.13 on). The system's own authorities are not trusted.

    Raises:
        ssl.SSLError: The text holds no certificate.

    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    context.load_verify_locations(cadata=ca_pem)
    return context
