"""A value that must not be seen by accident."""

from __future__ import annotations

import hmac
from typing import Final, NoReturn, SupportsIndex, final

HIDDEN: Final = "Secret(***)"


@final
class Secret:
    """A text that shows itself only when asked to.

    It has no telling `repr`, `str` or format, no pickle, no copy in JSON, and compares in constant time, so that it
    does not reach a log, a traceback or a backup because somebody passed it along.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, /) -> None:
        """Keep the text.

        Raises:
            TypeError: What was given is not text; a secret of a secret is a mistake, too.

        """
        if not isinstance(text, str):
            # The value stays out of the message.
            raise TypeError(f"a Secret holds a str, not {type(text).__name__}")
        self._text = text

    @classmethod
    def of(cls, value: Secret | str, /) -> Secret:
        """Return a secret as it is, and a text as a secret."""
        return value if isinstance(value, Secret) else cls(value)

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Compare with another secret; the time taken tells only whether the lengths are equal."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        """Refuse: a hash table compares by hash first and so leaks in its timing."""
        raise TypeError("a Secret cannot be hashed; use the id that belongs to it")

    def __repr__(self) -> str:
        """Return stars."""
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str, /) -> str:
        """Return stars, whatever the format."""
        return HIDDEN

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Refuse to be pickled or deep-copied into something else."""
        raise TypeError("a Secret cannot be pickled; call reveal() where the text is really needed")

    def __copy__(self) -> Secret:
        """Return itself: it never changes."""
        return self

    def __deepcopy__(self, memo: object, /) -> Secret:
        """Return itself: it never changes."""
        return self
