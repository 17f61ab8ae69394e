"""The trace of a run: what happened, when and to whom, as a digest and as lines for people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

DIGEST_BYTES: Final = 8


class Trace:
    """Takes note of events, in their order.

    Args:
        keep: Whether the lines are kept.
        tell: Is given each line as it is written.

    """

    def __init__(self, *, keep: bool = False, tell: Callable[[str], None] | None = None) -> None:
        """Begin empty."""
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._keep = keep
        self._tell = tell
        self.lines: list[str] = []
        self.count = 0
        """How many events were noted."""

    def note(self, at: float, who: str, what: str) -> None:
        """Take note of an event.

        Args:
            at: In seconds since the start of the run.
            who: The host, or the part of the world.
            what: What happened.

        """
        # All digits: two runs that differ by a nanosecond are different runs.
        self._hash.update(f"{at!r} {who} {what}\n".encode())
        self.count += 1
        if self._keep or self._tell is not None:
            line = f"{at:10.3f}  {who:<10} {what}"
            if self._keep:
                self.lines.append(line)
            if self._tell is not None:
                self._tell(line)

    def mix(self, text: str) -> None:
        """Have the digest depend on something that is no event."""
        self._hash.update(text.encode())

    @property
    def digest(self) -> str:
        """Return what two runs have in common that went the same way."""
        return self._hash.hexdigest()
