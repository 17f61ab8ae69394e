"""Which copies of a job are followed when somebody follows its logs: what is decided, without doing it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from khonsu.core.job import JSON
from khonsu.core.records import Allocation


class Following:
    """The copies whose logs are followed, and those of them whose streams are open."""

    def __init__(self, parameters: dict[str, JSON], present: Iterable[Allocation]) -> None:
        """Begin with what a caller wants, and the copies that there are."""
        self._parameters = parameters
        self._began = frozenset(one.id for one in present)
        self._followed: set[str] = set()
        self._open: set[str] = set()

    @property
    def idle(self) -> bool:
        """Return whether no stream is open."""
        return not self._open

    def lacks(self, copies: Iterable[Allocation]) -> bool:
        """Return whether one of the copies is not followed yet."""
        return any(one.id not in self._followed for one in copies)

    def take(self, copies: Iterable[Allocation]) -> Sequence[Allocation]:
        """Return the copies that are not followed yet; from now on they are, and count as open before they begin."""
        new = [one for one in copies if one.id not in self._followed]
        self._followed.update(one.id for one in new)
        self._open.update(one.id for one in new)
        return new

    def wanted(self, copy: Allocation) -> dict[str, JSON]:
        """Return what is wanted of a copy: of one that came later everything is new."""
        return self._parameters if copy.id in self._began else {**self._parameters, "tail": None}

    def opened(self, copy: Allocation) -> None:
        """Say that the stream of a copy is open again."""
        self._open.add(copy.id)

    def closed(self, copy: Allocation) -> None:
        """Say that the stream of a copy has ended."""
        self._open.discard(copy.id)
