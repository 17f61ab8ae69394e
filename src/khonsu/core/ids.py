"""Keys: 64-bit numbers (term and sequence) that are shown as short text.

Everywhere but in the store an id is its text. The number behind it is `term << 40 | sequence`. Its text is eight
base32 digits of the scrambled sequence followed by the term, so that keys made one after the other differ in their
first letters and a short prefix is enough to name one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NewType

AllocationId = NewType("AllocationId", str)
EvaluationId = NewType("EvaluationId", str)
NodeId = NewType("NodeId", str)

SEQUENCE_BITS = 40
TERM_MAX = (1 << 23) - 1
ATTEMPT_MAX = (1 << 16) - 1
"""The last attempt of an allocation that has a fencing token of its own."""
_MASK = (1 << SEQUENCE_BITS) - 1
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_WIDTH = SEQUENCE_BITS // 5
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_PAIR_VALUES = {pair: value for value, pair in enumerate(_PAIRS)}
_PLAIN = re.compile(f"[{_DIGITS}]*")
_TO_PYTHON = str.maketrans(_DIGITS, "0123456789abcdefghijklmnopqrstuv")  # the digits that int() knows
# An odd multiplier is a bijection modulo a power of two; this one is 2^40 / golden ratio, made odd.
_SCRAMBLE = 679_551_999_277 | 1
_UNSCRAMBLE = pow(_SCRAMBLE, -1, 1 << SEQUENCE_BITS)


def make_key(term: int, sequence: int) -> int:
    """Return the key of a term and a sequence number."""
    return term << SEQUENCE_BITS | sequence


def key_text(key: int) -> str:
    """Return a key as text."""
    value = (key & _MASK) * _SCRAMBLE & _MASK
    text = _PAIRS[value >> 30] + _PAIRS[value >> 20 & 1023] + _PAIRS[value >> 10 & 1023] + _PAIRS[value & 1023]
    term = key >> SEQUENCE_BITS
    while term > 31:  # the largest digit
        text += _DIGITS[term & 31]
        term >>= 5
    return text + _DIGITS[term]


def parse_key(text: str) -> int:
    """Return the key that a full text names.

    Raises:
        ValueError: The text names no key.

    """
    value_of = _PAIR_VALUES
    try:  # the usual text, three times as fast: a plan of a thousand copies has three thousand ids
        value = value_of[text[:2]] << 30 | value_of[text[2:4]] << 20 | value_of[text[4:6]] << 10 | value_of[text[6:8]]
        return _VALUES[text[8:]] << SEQUENCE_BITS | value * _UNSCRAMBLE & _MASK
    except KeyError:
        return _parse_any(text)


def parse_keys(texts: Sequence[str]) -> list[int]:
    """Return the keys that many full texts name; quicker than one by one.

    Raises:
        ValueError: One of the texts names no key.

    """
    joined = "".join(texts)
    length = _WIDTH + 1
    if set(map(len, texts)) != {length} or not _PLAIN.fullmatch(joined):
        return list(map(parse_key, texts))
    plain = joined.translate(_TO_PYTHON)
    return [
        _VALUES[joined[end - 1]] << SEQUENCE_BITS | int(plain[end - length : end - 1], 32) * _UNSCRAMBLE & _MASK
        for end in range(length, len(joined) + 1, length)
    ]


def _parse_any(text: str) -> int:
    """Return the key of a text in any case and of any term."""
    lowered = text.lower()
    if not _WIDTH < len(lowered) <= _WIDTH + 5 or any(letter not in _VALUES for letter in lowered):
        raise ValueError(f"{text!r} is not an id")
    value = 0
    for digit in lowered[:_WIDTH]:
        value = value << 5 | _VALUES[digit]
    term = sum(_VALUES[digit] << 5 * place for place, digit in enumerate(lowered[_WIDTH:]))
    return make_key(term, value * _UNSCRAMBLE & _MASK)


def fencing_token(term: int, generation: int, attempt: int) -> int:
    """Return the epoch of one attempt of a slot: it grows with every placement and every restart.

    Added up, so that it goes on growing when a generation needs more than its 24 bits: generations never go back.
    """
    return (term << 40) + (generation << 16) + attempt
