from __future__ import annotations

from khonsu.core.records import Time
from khonsu.core.results import Invitation, Score
from khonsu.core.secret import Secret
from khonsu.core.value import Value


def test_a_value_shows_itself_as_a_table() -> None:
    """A notebook gets a table with a row for each field, its texts escaped."""
    assert Score(name="<b>", value=0.5)._repr_html_() == (
        "<table><caption>Score</caption><tr><th>name</th><td>&lt;b&gt;</td></tr>"
        "<tr><th>value</th><td>0.5</td></tr></table>"
    )


def test_a_notebook_keeps_no_token() -> None:
    """What a `repr` leaves out is not in the table, which is saved with the notebook."""
    invitation = Invitation(token="khj1.of.a.secret", name="mac", labels={}, expires_at=Time(0.0))
    assert "khj1" not in invitation._repr_html_()
    assert "mac" in invitation._repr_html_()


def test_a_value_has_no_dictionary() -> None:
    """Values have slots, so that a hundred thousand of them stay small."""
    assert not hasattr(Score(name="a", value=1.0), "__dict__")
    assert isinstance(Score(name="a", value=1.0), Value)
    assert "x" not in str(Secret("x"))
