"""Which authority a server must belong to, and how it is learned."""

from __future__ import annotations

import ssl
from pathlib import Path

from khonsu.core.secret import Secret
from khonsu.env import Env
from khonsu.errors import InvalidRequest, Unreachable
from khonsu.security.fingerprint import Fingerprint
from khonsu.security.tokens import JOIN_PREFIX, JoinToken
from khonsu.security.trust import client_context
from khonsu.transports.address import Address

_HINT = (
    "Say whom to trust: by ca.pem of its data directory (`--ca FILE`, in Python `ca=`), or by its fingerprint khc1..., "
    "shown when it starts (`khonsu login URL --fingerprint`, in Python `fingerprint=`); a join token carries it"
)


class Pinned:
    """The authority of one server. Once learned it stays.

    Args:
        address: The server, for messages and to ask it.
        ca: The authority's certificate as PEM text, or the path of a file with it.
        fingerprint: What the authority must have, if its certificate is not known yet.
        env: For the thread that asks the server.

    Raises:
        InvalidRequest: Both are given, or the certificate cannot be read.
        MalformedToken: The fingerprint is none.

    """

    def __init__(self, address: Address, *, ca: str | Path | None, fingerprint: str | None, env: Env) -> None:
        """Read what is given."""
        if ca is not None and fingerprint is not None:
            raise InvalidRequest("ca= and fingerprint= both say whom to trust", hint="Give one of them")
        self._address = address
        self._fingerprint = Fingerprint.parse(fingerprint) if fingerprint is not None else None
        self._env = env
        self.authority = _pem(ca) if ca is not None else None
        self._context = _context(self.authority) if self.authority is not None else None

    async def context(self, credential: Secret | None) -> ssl.SSLContext:
        """Return the context for connections; asks the server for its authority if only a fingerprint is known.

        Args:
            credential: If it is a join token, it names the authority.

        Raises:
            InvalidRequest: Nothing says whom to trust.
            WrongAuthority: The server belongs to another authority.
            Unreachable: There is no server.

        """
        if self._context is None:
            fingerprint = self._fingerprint or _named_by(credential)
            if fingerprint is None:
                raise InvalidRequest(f"nothing says which authority {self._address} must have", hint=_HINT)
            self.authority = await self._fetch(fingerprint)
            self._context = client_context(self.authority)
        return self._context

    async def check(self) -> None:
        """Ask a server whose certificate was refused whom it belongs to.

        Raises:
            WrongAuthority: To another authority than the pinned one; it names both.
            Unreachable: It does not answer any more.

        """
        from khonsu.security.pinning import fingerprint_of_pem

        if self.authority is not None:
            await self._fetch(fingerprint_of_pem(self.authority))

    async def _fetch(self, fingerprint: Fingerprint) -> str:
        if self._address.proxy() is not None:
            raise Unreachable(
                str(self._address),
                "its authority cannot be learned through a proxy",
                hint="Give `ca=`, or leave it out of the proxy with NO_PROXY",
            )
        # Loaded only here: `cryptography` costs an agent memory that it does not need afterwards.
        from khonsu.security.pinning import fetch_ca

        return await self._env.run_blocking(fetch_ca, self._address.host, self._address.port, fingerprint)


def _named_by(credential: Secret | None) -> Fingerprint | None:
    if credential is None or not credential.reveal().lstrip().startswith(JOIN_PREFIX):
        return None
    return JoinToken.parse(credential).authority


def _pem(ca: str | Path) -> str:
    if isinstance(ca, str) and "-----BEGIN" in ca:
        return ca
    try:
        return Path(ca).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the certificate {ca} cannot be read: {error}") from error


def _context(pem: str) -> ssl.SSLContext:
    try:
        return client_context(pem)
    except (ssl.SSLError, ValueError) as error:
        hint = "It is the ca.pem of the server's data directory"
        raise InvalidRequest("ca= holds no certificate", hint=hint) from error
