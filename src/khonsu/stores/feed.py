"""The feed: every durable change list in order, for any number of watchers.

A watcher is a position. It reads on from the tail, the last change lists in memory; where it has fallen behind that,
or came late, it reads from the store's table in slices until it has caught up. So a slow watcher costs no memory, and
holds up nobody.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Self

import anyio
import anyio.lowlevel

from khonsu.abc.store import ChangeList
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone, ensure
from khonsu.stores.changes import rows_of
from khonsu.stores.errors import not_open

TAIL_ROWS_MAX = 20_000
TAIL_LISTS_MAX = 2_000
PAGE_LISTS_MAX = 100

ReadHistory = Callable[[Revision], Awaitable[Sequence[ChangeList]]]
"""Reads some of the durable change lists after a revision, at least one if there is one."""


class Feed:
    """Durable change lists on their way to watchers. Used from the event loop.

    Args:
        read_history: Reads what the tail does not reach back to; None where the tail is all there is.
        tail_rows_max: How many changed rows the tail keeps.
        keeps_tail: Whether the tail is kept also while nobody watches.

    """

    def __init__(
        self, read_history: ReadHistory | None = None, *, tail_rows_max: int = TAIL_ROWS_MAX, keeps_tail: bool = False
    ) -> None:
        """Start closed, and empty at revision zero."""
        self._read_history = read_history
        self._rows_max = tail_rows_max
        self._keeps_tail = keeps_tail
        self._watchers = 0
        self._open = False
        self._changed: anyio.Event | None = None
        self._tail: deque[ChangeList] = deque()
        self._rows = 0
        self._base = self._end = ZERO
        self._terms: list[Revision] = [ZERO]

    def open(self) -> None:
        """Let watchers in; call it on the event loop."""
        self._open = True
        self._changed = anyio.Event()

    def load(self, terms: Sequence[Revision], end: Revision) -> None:
        """Begin with what a store holds: the first of `terms` is the revision after which the history begins.

        Args:
            terms: The first revision of each term in the history, in order.
            end: The last durable revision.

        """
        self._base, self._end = terms[0], end
        self._terms = list(terms)
        self._tail.clear()
        self._rows = 0

    def catch_up(self, terms: Sequence[Revision], end: Revision) -> None:
        """Take note of durable revisions that were not published; watchers read them from the store's table.

        Args:
            terms: The first revision of each term in the history, in order.
            end: The last durable revision.

        """
        if end.number > self._end.number:
            self.load(terms, end)
            self._wake()

    def close(self) -> None:
        """End all watchers."""
        self._open = False
        self._wake()

    def publish(self, lists: Sequence[ChangeList], base: Revision | None = None) -> None:
        """Hand durable change lists to the watchers.

        Args:
            lists: They follow what was published before, and each other without a gap.
            base: The revision after which the store's table begins now.

        """
        if lists and lists[0].revision.number != self._end.number + 1:
            self._tail.clear()  # what is between was not published, and is in the table
            self._rows = 0
        for found in lists:
            if found.revision.term != self._end.term:
                self._terms.append(found.revision)
            self._end = found.revision
        if self._keeps_tail or self._watchers:
            self._keep(lists)
        if base is not None and base > self._base:
            self._set_base(base)
        self._wake()

    @asynccontextmanager
    async def watch(self, after: Revision) -> AsyncGenerator[AsyncIterator[ChangeList], None]:
        """Iterate over the change lists after a revision.

        Raises:
            HistoryGone: It is pruned, ahead of the store, or of an ended term.

        """
        self.check(after)
        self._watchers += 1
        try:
            yield _Watcher(self, after)
        finally:
            self._watchers -= 1
            if not self._watchers and not self._keeps_tail:
                self._tail.clear()
                self._rows = 0

    def check(self, after: Revision) -> None:
        """Refuse a revision after which the history is not known.

        Raises:
            HistoryGone: It is pruned, ahead of the store, or of an ended term.

        """
        hint = "Read the state anew, and watch from its revision"
        if after.number > self._end.number:
            raise HistoryGone(f"there is no revision {after} here: the last one is {self._end}", hint=hint)
        if after.number < self._base.number:
            raise HistoryGone(
                f"the changes after revision {after} are pruned; they begin after {self._base}", hint=hint
            )
        term = self._terms[bisect_right([first.number for first in self._terms], after.number) - 1].term
        if after.term != term:
            raise HistoryGone(
                f"revision {after} is none of this history: number {after.number} is of term {term}", hint=hint
            )

    async def after(self, position: Revision) -> Sequence[ChangeList]:
        """Return some of the change lists after a revision, at least one; wait for it if need be.

        Raises:
            HistoryGone: The revision was pruned meanwhile.
            StoreError: The store was closed.

        """
        while True:
            if not self._open or self._changed is None:
                raise not_open()
            if position.number < self._end.number:
                break
            await self._changed.wait()
        self.check(position)
        if self._tail and self._tail[0].revision.number <= position.number + 1:
            start = position.number + 1 - self._tail[0].revision.number
            return list(islice(self._tail, start, start + PAGE_LISTS_MAX))
        ensure(self._read_history is not None, "without a table the tail reaches back to the base")
        return await self._read_history(position) if self._read_history is not None else ()

    async def reached(self, number: int) -> None:
        """Wait until a revision that is durable was published."""
        while self._end.number < number and self._changed is not None:
            await self._changed.wait()

    def _keep(self, lists: Sequence[ChangeList]) -> None:
        """Put change lists into the tail, and let the oldest go."""
        self._tail.extend(lists)
        self._rows += sum(map(rows_of, lists))
        while len(self._tail) > 1 and (self._rows > self._rows_max or len(self._tail) > TAIL_LISTS_MAX):
            gone = self._tail.popleft()
            self._rows -= rows_of(gone)
            if self._read_history is None:
                self._set_base(gone.revision)

    def _set_base(self, base: Revision) -> None:
        self._base = base
        self._terms = [base, *(first for first in self._terms if first.number > base.number)]

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = anyio.Event()


class _Watcher(AsyncIterator[ChangeList]):
    """One reader's place in the feed."""

    def __init__(self, feed: Feed, after: Revision) -> None:
        self._feed = feed
        self._position = after
        self._page: deque[ChangeList] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChangeList:
        await anyio.lowlevel.checkpoint()
        if not self._page:
            self._page.extend(await self._feed.after(self._position))
        found = self._page.popleft()
        self._position = found.revision
        return found
