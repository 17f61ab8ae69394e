from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.revision import ZERO, Revision

NUMBERS = st.integers(0, 2**62)


@given(NUMBERS, NUMBERS)
def test_a_revision_survives_its_text(term: int, number: int) -> None:
    """`TERM.NUMBER` is read back as the same revision."""
    revision = Revision(term, number)
    assert Revision.parse(str(revision)) == revision


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_revisions_compare_as_pairs(term: int, number: int, other_term: int, other_number: int) -> None:
    """The term counts first; the texts say nothing of the order."""
    assert (Revision(term, number) < Revision(other_term, other_number)) == (
        (term, number) < (other_term, other_number)
    )


def test_the_next_revision_is_greater_and_of_the_same_term() -> None:
    """One is added to the number."""
    assert Revision(2, 9).next() == Revision(2, 10)
    assert ZERO.next() > ZERO


@pytest.mark.parametrize(
    "text", ["", ".", "1", "1.", ".1", "1.2.3", "-1.2", "1.-2", "a.1", "1,2", "\u0661.\u0662", " 1.2", "1. 2"]
)
def test_what_is_no_revision(text: str) -> None:
    """Anything but two numbers with a dot is refused."""
    with pytest.raises(ValueError, match="is not a revision"):
        Revision.parse(text)
