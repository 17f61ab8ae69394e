"""Revisions: every commit has one. A pair of the term and a number, compared as a pair."""

from __future__ import annotations

from attrs import frozen


@frozen(order=True)
class Revision:
    """A point in the history of the state."""

    term: int
    number: int

    def __str__(self) -> str:
        """Return it as text, `TERM.NUMBER`."""
        return f"{self.term}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Parse `TERM.NUMBER`.

        Raises:
            ValueError: The text is no revision.

        """
        term, dot, number = text.partition(".")
        if not (dot and term.isascii() and term.isdigit() and number.isascii() and number.isdigit()):
            raise ValueError(f"{text!r} is not a revision")
        return cls(int(term), int(number))

    def next(self) -> Revision:
        """Return the revision after this one, in the same term."""
        return Revision(self.term, self.number + 1)


ZERO = Revision(0, 0)
