"""Tokens: what an operator, a node, or a machine that wants to become a node shows to the control plane.

    kht1.<id>.<secret>                  bearer token of an operator or a node
    khj1.<authority>.<id>.<secret>      join token: once, and it names the authority that the server must have

The id is public and finds the record; the record keeps only a hash. The secret part is 256 bits of chance, so a plain
SHA-256 is enough: there is nothing to guess. Its last letters are a checksum, so that a token cut by the clipboard is
told apart from one that is not known.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

from attrs import frozen

from khonsu.core.secret import Secret
from khonsu.errors import MalformedToken
from khonsu.security import encoding
from khonsu.security.fingerprint import PREFIX as FINGERPRINT_PREFIX
from khonsu.security.fingerprint import Fingerprint

TokenBytes = Callable[[int], bytes]
"""Where unguessable bytes come from: `Env.token_bytes`."""

BEARER_PREFIX: Final = "kht1"
JOIN_PREFIX: Final = "khj1"
ID_BYTES: Final = 10
TEXT_LENGTH_MAX: Final = 512

_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,63}", re.ASCII)
_KINDS = {
    BEARER_PREFIX: "an access token",
    JOIN_PREFIX: "a join token",
    FINGERPRINT_PREFIX: "a fingerprint",
}


@frozen(kw_only=True)
class Token:
    """What both kinds have in common: a public id, and a secret part that is compared by hash."""

    id: str
    secret: Secret

    @property
    def head(self) -> str:
        """Return everything before the secret part."""
        raise NotImplementedError

    def text(self) -> Secret:
        """Return the token as it is shown once, to whoever will hold it."""
        return Secret(f"{self.head}.{self.secret.reveal()}")

    def digest(self) -> str:
        """Return what the control plane keeps: the SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text().reveal().encode()).hexdigest()

    def matches(self, digest: str) -> bool:
        """Return whether this is the token whose `digest` was kept; the time taken does not depend on the answer."""
        return hmac.compare_digest(self.digest().encode(), digest.encode())


@frozen(kw_only=True)
class BearerToken(Token):
    """A credential that is shown with every request."""

    @classmethod
    def new(cls, token_bytes: TokenBytes) -> BearerToken:
        """Make a token that nobody has."""
        token_id = encoding.base32(token_bytes(ID_BYTES))
        return cls(id=token_id, secret=_new_secret(token_bytes, _bearer_head(token_id)))

    @classmethod
    def parse(cls, text: Secret | str) -> BearerToken:
        """Return the token that a text stands for; white space around it does not matter.

        Raises:
            MalformedToken: It is cut, mistyped or of another kind; the message does not repeat it.

        """
        token_id, secret = _parts(text, BEARER_PREFIX, 2)
        return cls(id=token_id, secret=_checked(secret, _bearer_head(token_id), BEARER_PREFIX))

    @property
    def head(self) -> str:
        """Return everything before the secret part."""
        return _bearer_head(self.id)


@frozen(kw_only=True)
class JoinToken(Token):
    """A credential that is shown once, to become a node; `authority` pins the server before anything is said."""

    authority: Fingerprint

    @classmethod
    def new(cls, authority: Fingerprint, token_bytes: TokenBytes) -> JoinToken:
        """Make a token that nobody has."""
        token_id = encoding.base32(token_bytes(ID_BYTES))
        secret = _new_secret(token_bytes, _join_head(authority.body, token_id))
        return cls(authority=authority, id=token_id, secret=secret)

    @classmethod
    def parse(cls, text: Secret | str) -> JoinToken:
        """Return the token that a text stands for; white space around it does not matter.

        Raises:
            MalformedToken: It is cut, mistyped or of another kind; the message does not repeat it.

        """
        authority, token_id, secret = _parts(text, JOIN_PREFIX, 3)
        checked = _checked(secret, _join_head(authority, token_id), JOIN_PREFIX)
        return cls(authority=Fingerprint.from_body(authority), id=token_id, secret=checked)

    @property
    def head(self) -> str:
        """Return everything before the secret part."""
        return _join_head(self.authority.body, self.id)


def _bearer_head(token_id: str) -> str:
    return f"{BEARER_PREFIX}.{token_id}"


def _join_head(authority: str, token_id: str) -> str:
    return f"{JOIN_PREFIX}.{authority}.{token_id}"


def _new_secret(token_bytes: TokenBytes, head: str) -> Secret:
    return Secret(encoding.encode(token_bytes(encoding.PAYLOAD_BYTES), head))


def _parts(text: Secret | str, prefix: str, count: int) -> list[str]:
    """Split a token of one kind into its `count` parts behind the prefix; the id is the last but one."""
    kind = _KINDS[prefix]
    stripped = Secret.of(text).reveal().strip()
    found, *parts = stripped.split(".")
    if not stripped:
        raise MalformedToken(kind, "is empty")
    if len(stripped) > TEXT_LENGTH_MAX:
        raise MalformedToken(kind, f"is too long: {len(stripped)} letters")
    if found != prefix:
        other = next((name for known, name in _KINDS.items() if stripped.startswith(known)), None)
        raise MalformedToken(kind, f"is {other} instead" if other else f'does not begin with "{prefix}."')
    if len(parts) < count:
        raise MalformedToken(kind, f"is cut: it has {len(parts)} of {count} parts behind {prefix}")
    if len(parts) > count:
        raise MalformedToken(kind, f"has {len(parts)} parts behind {prefix}, not {count}")
    if not _ID.fullmatch(parts[-2]):
        raise MalformedToken(kind, "has an id that is none")
    return parts


def _checked(secret: str, head: str, prefix: str) -> Secret:
    """Return the secret part if its checksum fits what stands before it."""
    try:
        encoding.decode(secret, head)
    except ValueError as error:
        raise MalformedToken(_KINDS[prefix], str(error)) from None
    return Secret(secret)
