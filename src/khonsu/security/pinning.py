"""Learn a control plane's authority from nothing but its fingerprint, before anything is said.

A client that only knows a fingerprint shakes hands once without trust, reads the chain that the server shows, and
ends the connection. The handshake proves that the server has the key of its certificate; the check here, that this
certificate was signed by the pinned authority. Names and dates are checked by the next connection, as by every one:
it trusts the authority learned here and nobody else (`khonsu.security.trust`).
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from khonsu.errors import Unreachable, WrongAuthority
from khonsu.security.authority import fingerprint_of
from khonsu.security.fingerprint import Fingerprint

TIMEOUT_SECONDS: Final = 10.0


def fetch_ca(host: str, port: int, fingerprint: Fingerprint, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Return the authority's certificate (PEM) of a server that proves to belong to a fingerprint.

    Blocks, at most the time-out for each address of the host and again for the handshake; in async code, call it
    through `Env.run_blocking`. Sends nothing but the TLS handshake.

    Raises:
        WrongAuthority: The server belongs to another authority, or to none.
        Unreachable: There is no server, or it does not speak TLS 1.3.

    """
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_seconds) as connection,
            _trustless_context().wrap_socket(connection, server_hostname=host) as tls,
        ):
            shown = _chain(tls)
    except ssl.SSLError as error:
        cause = f"the TLS handshake failed ({error.reason or error})"
        raise Unreachable(server, cause, hint="Check that the address is that of a Khonsu server") from error
    except OSError as error:
        raise Unreachable(server, str(error), hint="Check the address, the port, and that the server runs") from error
    return _pinned(server, shown, fingerprint)


def fingerprint_of_pem(ca_pem: str) -> Fingerprint:
    """Return the fingerprint of an authority that is known by its certificate (PEM)."""
    return fingerprint_of(x509.load_pem_x509_certificate(ca_pem.encode("ascii")))


def _trustless_context() -> ssl.SSLContext:
    """Return a context that takes any certificate, for the one handshake in which the chain is learned."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server showed, as DER, its own first.

    `SSLSocket.get_unverified_chain` is public from Python 3.13 on; 3.11 and 3.12 have it one level below.
    """
    connection: Any = tls
    if hasattr(connection, "get_unverified_chain"):
        return list(connection.get_unverified_chain())
    shown = connection._sslobj.get_unverified_chain() or ()  # noqa: SLF001 - see above
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in shown]


def _pinned(server: str, shown: list[bytes], fingerprint: Fingerprint) -> str:
    """Return the pinned authority of a chain, if it did sign the server's certificate."""
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in shown]
        fingerprints = [fingerprint_of(certificate) for certificate in certificates]
    except (ValueError, AttributeError, TypeError) as error:
        raise WrongAuthority(server, expected=str(fingerprint), found="a certificate that cannot be read") from error
    if fingerprint not in fingerprints[1:]:
        found = str(fingerprints[-1]) if len(fingerprints) > 1 else "a certificate without its authority"
        raise WrongAuthority(server, expected=str(fingerprint), found=found)
    authority = certificates[fingerprints.index(fingerprint, 1)]
    try:
        authority.verify_directly_issued_by(authority)
        certificates[0].verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        found = "a certificate that it did not sign"
        raise WrongAuthority(server, expected=str(fingerprint), found=found) from error
    return authority.public_bytes(Encoding.PEM).decode("ascii")
