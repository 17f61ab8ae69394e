"""A store in memory, for tests, the playground and clusters that may forget."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio.lowlevel

from khonsu.abc.store import ChangeList, Commit, Store, Transaction, View
from khonsu.core.records import Record
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import ensure
from khonsu.stores.errors import not_open
from khonsu.stores.feed import Feed
from khonsu.stores.tables import Block, Table, tables
from khonsu.stores.views import Key, Rows, RowsTransaction, RowsView, Wanted, run_over

T = TypeVar("T")


class MemoryStore(Store):
    """A store that forgets everything when it is gone. Left and entered again, it still has what it had.

    Transactions run on the event loop.

    Args:
        history_rows_max: How many changed rows the feed keeps for watchers that come late.

    """

    def __init__(self, *, history_rows_max: int = 100_000) -> None:
        """Start empty."""
        self._rows = _MemoryRows()
        self._revision = ZERO
        self._feed = Feed(tail_rows_max=history_rows_max, keeps_tail=True)
        self._entered = False

    async def __aenter__(self) -> Self:
        """Open the store."""
        ensure(not self._entered, "a store is entered once at a time")
        self._entered = True
        self._feed.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the store; what it holds stays in it."""
        self._entered = False
        self._feed.close()

    async def read(self, query: Callable[[View], T], /) -> T:
        """Run a query."""
        self._check()
        await anyio.lowlevel.checkpoint()
        view = RowsView(self._rows, self._revision)
        try:
            return run_over(view, query)
        finally:
            view.end()

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Run a transaction."""
        self._check()
        running = RowsTransaction(self._rows, self._revision)
        try:
            value = run_over(running, transaction)
        except BaseException:
            self._rows.undo()
            raise
        finally:
            running.end()
            self._rows.forget_undo()
        self._revision = running.result
        commit = Commit(value, self._revision, tuple(running.changes))
        self._feed.publish([ChangeList(commit.revision, commit.changes)])
        await anyio.lowlevel.cancel_shielded_checkpoint()
        return commit

    def watch(self, after: Revision, /) -> AbstractAsyncContextManager[AsyncIterator[ChangeList]]:
        """Iterate over every change list after a revision."""
        self._check()
        return self._feed.watch(after)

    def _check(self) -> None:
        if not self._entered:
            raise not_open()


class _MemoryRows(Rows):
    """Records by kind and stored key, and how to undo what was done to them since the last `forget_undo`."""

    def __init__(self) -> None:
        self.tables: Mapping[str, Table] = tables()
        self._records: dict[str, dict[Key, Record]] = {name: {} for name in self.tables}
        self._ordered: dict[str, list[Any]] = {}
        self._before: list[tuple[str, Key, Record | None]] = []

    def get(self, table: Table, key: Key) -> Record | None:
        """Return one record, or None."""
        return self._records[table.name].get(key)

    def find(self, table: Table, after: Key | None, limit: int | None, wanted: Sequence[Wanted]) -> list[Record]:
        """Return the records that meet all conditions, in the order of their keys."""
        return list(islice(self._matching(table, after, wanted), limit))

    def put(self, block: Block, records: tuple[Record, ...] | None) -> None:
        """Write the rows of a block."""
        keys: Any = block.column(block.table.kind.key)
        for key, record in zip(keys, block.records() if records is None else records, strict=True):
            self._set(block.table.name, key, record)

    def delete(self, table: Table, keys: list[Key]) -> list[Key]:
        """Remove records, and return the keys of those that were there."""
        gone = [key for key in keys if key in self._records[table.name]]
        for key in gone:
            self._set(table.name, key, None)
        return gone

    def undo(self) -> None:
        """Put everything back as it was at the last `forget_undo`."""
        for name, key, record in reversed(self._before.copy()):
            self._set(name, key, record)

    def forget_undo(self) -> None:
        """Let all that was done stand."""
        self._before.clear()

    def _matching(self, table: Table, after: Key | None, wanted: Sequence[Wanted]) -> Iterator[Record]:
        records = self._records[table.name]
        ordered = self._ordered.get(table.name)
        if ordered is None:  # a key came or went since they were last sorted
            ordered = self._ordered[table.name] = sorted(records)
        for key in islice(ordered, 0 if after is None else bisect_right(ordered, after), None):
            if all(condition.met_by(records[key]) for condition in wanted):
                yield records[key]

    def _set(self, name: str, key: Key, record: Record | None) -> None:
        records = self._records[name]
        before = records.get(key)
        self._before.append((name, key, before))
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record
        if (before is None) != (record is None):
            self._ordered.pop(name, None)
