"""Revisions: every commit has one. A pair of the term and a number, compared as a pair."""

from __future__ import annotations

from attrs import frozen


@frozen
class Revision:
    """A point in the history of the state."""

    term: int
    number: int

    # By hand: every renewal compares revisions, and what attrs makes for it takes five times as long.

    def __lt__(self, other: Revision) -> bool:
        """Return whether it comes before another one."""
        return (self.term, self.number) < (other.term, other.number)

    def __le__(self, other: Revision) -> bool:
        """Return whether it comes before another one, or is the same."""
        return (self.term, self.number) <= (other.term, other.number)

    def __gt__(self, other: Revision) -> bool:
        """Return whether it comes after another one."""
        return (self.term, self.number) > (other.term, other.number)

    def __ge__(self, other: Revision) -> bool:
        """Return whether it comes after another one, or is the same."""
        return (self.term, self.number) >= (other.term, other.number)

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
