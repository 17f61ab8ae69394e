"""How key material is written: lower-case base32 with a checksum, which people can select with a double click."""

from __future__ import annotations

import base64
import binascii
import hashlib

PAYLOAD_BYTES = 32
CHECKSUM_BYTES = 3
# 35 bytes are 56 digits without padding and without spare bits, so that every value has exactly one text.
TEXT_LENGTH = (PAYLOAD_BYTES + CHECKSUM_BYTES) * 8 // 5


def base32(data: bytes) -> str:
    """Return bytes as lower-case base32 without padding; a multiple of five bytes has exactly one text."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


def encode(payload: bytes, context: str) -> str:
    """Return 32 bytes with a checksum over them and what stands before them."""
    return base32(payload + _checksum(payload, context))


def decode(text: str, context: str) -> bytes:
    """Return the 32 bytes that a text of `encode` stands for.

    Raises:
        ValueError: It is too short or too long, has a foreign letter, or its checksum is wrong. The message is a
            predicate ("is cut: ...") and never repeats the text, which may be a secret.

    """
    if len(text) != TEXT_LENGTH:
        fault = "is cut" if len(text) < TEXT_LENGTH else "is too long"
        raise ValueError(f"{fault}: {len(text)} of {TEXT_LENGTH} letters")
    try:
        # Lower case only: one value has one text.
        data = base64.b32decode(text.encode("ascii").swapcase())
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("has a letter that cannot be in it (known are a to z and 2 to 7)") from None
    payload, checksum = data[:PAYLOAD_BYTES], data[PAYLOAD_BYTES:]
    if checksum != _checksum(payload, context):
        raise ValueError("is mistyped: its checksum does not match")
    return payload


def _checksum(payload: bytes, context: str) -> bytes:
    """Guard against slips of the hand and the clipboard; it proves nothing to anybody."""
    return hashlib.sha256(context.encode() + b"\0" + payload).digest()[:CHECKSUM_BYTES]
