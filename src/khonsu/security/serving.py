"""The serving side of TLS: a context whose certificate is made anew before it runs out."""

from __future__ import annotations

import logging
import ssl
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from khonsu.env import Env
from khonsu.security.authority import Authority, Certificate
from khonsu.security.encoding import base32

RENEWED_AT_SHARE: Final = 2 / 3

_log = logging.getLogger(__name__)


def server_context(authority: Authority, hosts: Iterable[str], env: Env) -> ssl.SSLContext:
    """Return a TLS 1.3 context for a server that is known under these names and addresses. Blocks for milliseconds.

    The certificate lives in memory only and is issued anew at two thirds of its life, by the first handshake after
    that; connections go on. The chain that is sent ends with the authority's certificate, from which a client that
    only knows the fingerprint learns it.

    Raises:
        ValueError: One of the hosts is neither a host name nor an address.

    """
    return _Server(authority, tuple(hosts), env).context


class _Server:
    """Hands each handshake the present certificate."""

    def __init__(self, authority: Authority, hosts: tuple[str, ...], env: Env) -> None:
        self._authority = authority
        self._hosts = hosts
        self._env = env
        self._issue()
        # What the server listens with stays the same object; its own certificate is never shown after the first
        # renewal. OpenSSL calls back in every handshake, also where the client names no server.
        self.context = self._current
        self.context.sni_callback = self._choose

    def _issue(self) -> None:
        certificate = self._authority.issue_server(self._hosts)
        self._current = _loaded(certificate, self._env)
        self._fresh_from = certificate.not_before
        self._fresh_until = certificate.not_before + RENEWED_AT_SHARE * (certificate.not_after - certificate.not_before)

    def _is_fresh(self, now: datetime) -> bool:
        """Return whether the certificate is neither old nor, after the clock was set back, from the future."""
        return self._fresh_from <= now < self._fresh_until

    def _choose(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        """Give a handshake the present certificate."""
        if not self._is_fresh(self._env.utc_now()):
            try:
                self._issue()
            except OSError as error:
                # A third of its life is left to mend what is wrong, for example a full disk.
                _log.warning("the server's certificate could not be made anew: %s", error)
        if connection.context is not self._current:
            connection.context = self._current


def _loaded(certificate: Certificate, env: Env) -> ssl.SSLContext:
    """Return a context with a certificate.

    OpenSSL takes keys from files only. The file is in a directory of ours, is gone at once, and its key is
    encrypted with a password that nobody keeps, so that it is no use to whoever reads the disk later.
    """
    password = base32(env.token_bytes(20)).encode()
    key = certificate.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory(prefix="khonsu-") as directory:
        file = Path(directory) / "server.pem"
        file.touch(mode=0o600)
        file.write_bytes(key + certificate.chain_pem)
        context.load_cert_chain(file, password=password)
    return context
