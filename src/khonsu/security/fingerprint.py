"""The fingerprint of a control plane's authority: what a person compares and a client pins."""

from __future__ import annotations

import hashlib
from typing import Final

from attrs import field, frozen
from attrs.validators import instance_of

from khonsu.errors import MalformedToken
from khonsu.security import encoding

PREFIX: Final = "khc1"


@frozen
class Fingerprint:
    """The SHA-256 of an authority's public key (its SubjectPublicKeyInfo, RFC 7469 section 2.4); not a secret."""

    digest: bytes = field(validator=instance_of(bytes), repr=bytes.hex)

    def __attrs_post_init__(self) -> None:
        if len(self.digest) != encoding.PAYLOAD_BYTES:
            raise ValueError(f"a fingerprint has {encoding.PAYLOAD_BYTES} bytes, not {len(self.digest)}")

    @classmethod
    def of_public_key(cls, public_key_info: bytes) -> Fingerprint:
        """Return the fingerprint of a public key, given as DER (SubjectPublicKeyInfo)."""
        return cls(hashlib.sha256(public_key_info).digest())

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Return the fingerprint that a text such as `khc1...` stands for.

        Raises:
            MalformedToken: It is cut, mistyped or something else.

        """
        stripped = text.strip()
        if not stripped.startswith(PREFIX):
            raise MalformedToken("the fingerprint", f'does not begin with "{PREFIX}"', hint=_HINT)
        return cls.from_body(stripped.removeprefix(PREFIX))

    @classmethod
    def from_body(cls, body: str) -> Fingerprint:
        """Return the fingerprint of its text without the prefix, as it stands in a join token.

        Raises:
            MalformedToken: It is cut or mistyped.

        """
        try:
            return cls(encoding.decode(body, PREFIX))
        except ValueError as error:
            raise MalformedToken("the fingerprint", str(error), hint=_HINT) from None

    @property
    def body(self) -> str:
        """Return the text without the prefix."""
        return encoding.encode(self.digest, PREFIX)

    def __str__(self) -> str:
        """Return the text, `khc1` and 56 letters."""
        return PREFIX + self.body


_HINT = "Copy the whole line that the server printed at its start, or that `khonsu node invite` prints"
