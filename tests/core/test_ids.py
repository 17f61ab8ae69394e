from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.ids import ATTEMPT_MAX, TERM_MAX, fencing_token, key_text, make_key, parse_key, parse_keys

KEYS = st.builds(make_key, st.integers(0, TERM_MAX), st.integers(0, 2**40 - 1))


@given(KEYS)
def test_a_key_survives_its_text(key: int) -> None:
    """Every key of every term has a text that names it, in any case of letters."""
    text = key_text(key)
    assert parse_key(text) == key
    assert parse_key(text.upper()) == key
    assert 9 <= len(text) <= 13


@given(KEYS)
def test_many_keys_are_read_like_one(key: int) -> None:
    """Keys that are read at once are those that are read one by one."""
    keys = [key, 1, key ^ 1]
    texts = list(map(key_text, keys))
    assert parse_keys(texts) == keys
    assert parse_keys([text.upper() for text in texts]) == keys
    assert parse_keys([]) == []
    with pytest.raises(ValueError, match="is not an id"):
        parse_keys([*texts, "0000_0001"])


@given(KEYS)
def test_a_key_fits_into_the_store(key: int) -> None:
    """A key is not negative and has 63 bits, so that SQLite takes it."""
    assert 0 <= key < 2**63


def test_neighbours_differ_in_their_first_letters() -> None:
    """Keys made one after the other are told apart by a short prefix."""
    assert len({key_text(make_key(1, sequence))[:3] for sequence in range(1000)}) > 900


@pytest.mark.parametrize(
    "text",
    ["", "0", "00000000", "0000000o1", "00000000i", "00000000é", "0" * 14, "0000 0000", "-00000000", "\u0660" * 9],
)
def test_what_is_no_id(text: str) -> None:
    """A text that is cut, too long, or has other letters names nothing."""
    with pytest.raises(ValueError, match="is not an id"):
        parse_key(text)


def test_an_epoch_grows_with_term_generation_and_attempt() -> None:
    """A restart, a placement and a term each make a token greater than all before."""
    tokens = [
        fencing_token(1, 1, 1),
        fencing_token(1, 1, 2),
        fencing_token(1, 1, ATTEMPT_MAX),
        fencing_token(1, 2, 0),
        fencing_token(2, 2, 0),
        fencing_token(2, 2**24 - 1, 7),
        fencing_token(2, 2**24, 1),
        fencing_token(2, 2**24 + 1, 1),
    ]
    assert tokens == sorted(tokens)
    assert len(set(tokens)) == len(tokens)
