"""The views and transactions of all stores, over the rows of one. They end, and a transaction knows what it did."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from attrs import frozen

from khonsu.abc.store import Change, Columns, Delete, Transaction, View
from khonsu.core.records import KIND_OF, Record, Setting
from khonsu.core.revision import Revision
from khonsu.stores.changes import BlockPut
from khonsu.stores.columns import Column, Stored
from khonsu.stores.tables import Block, Table, table_of

T = TypeVar("T")
V = TypeVar("V", bound=View)

Key = int | str
"""A key in its stored form."""

TERM_KEY = "term"
"""The key of the setting that holds the term. The write that raises it is the first revision of the new term."""


@frozen
class Wanted:
    """A condition of a search: a field and the value that it must have."""

    column: Column
    value: object
    stored: Stored

    def met_by(self, record: Record) -> bool:
        """Return whether a record meets it."""
        found = getattr(record, self.column.name)
        if found is None or self.value is None or not self.column.form.compared:
            return bool(found == self.value)
        return self.column.encode(found) == self.stored


class Rows(ABC):
    """The rows of a store, as its views see them. Used from one thread."""

    tables: Mapping[str, Table]

    @abstractmethod
    def get(self, table: Table, key: Key) -> Record | None:
        """Return one record, or None."""

    @abstractmethod
    def find(self, table: Table, after: Key | None, limit: int | None, wanted: Sequence[Wanted]) -> list[Record]:
        """Return the records that meet all conditions, in the order of their keys."""

    @abstractmethod
    def put(self, block: Block, records: tuple[Record, ...] | None) -> None:
        """Write the rows of a block, at least one; the records too where they are there already."""

    @abstractmethod
    def delete(self, table: Table, keys: list[Key]) -> list[Key]:
        """Remove records, and return the keys of those that were there, in the order given."""


class RowsView(View):
    """A view over rows, until it is ended."""

    def __init__(self, rows: Rows, revision: Revision) -> None:
        """Begin at a revision."""
        self._rows = rows
        self._revision = revision
        self._ended = False

    def end(self) -> None:
        """Refuse any further use."""
        self._ended = True

    @property
    def revision(self) -> Revision:
        """Return the revision."""
        self._check()
        return self._revision

    def get(self, kind: str, key: str, /) -> Record | None:
        """Return one record, or None."""
        table = self._table(kind)
        stored = table.stored_key(key)
        return None if stored is None else self._rows.get(table, stored)

    def find(
        self, kind: str, /, *, after_key: str | None = None, limit: int | None = None, **equals: object
    ) -> Sequence[Record]:
        """Return the records whose fields have these values, in the order of their keys."""
        table = self._table(kind)
        after = None if after_key is None else table.stored_key(after_key)
        if after_key is not None and after is None:
            raise ValueError(f"after_key={after_key!r} is no key of {kind}")
        if limit is not None and limit < 0:
            raise ValueError(f"limit={limit} is negative")
        wanted = []
        for name, value in equals.items():
            column = table.column(name)
            try:
                wanted.append(Wanted(column, value, None if value is None else column.encode(value)))
            except ValueError:  # no record can have it
                return []
        return self._rows.find(table, after, limit, wanted)

    def _table(self, kind: str) -> Table:
        self._check()
        return table_of(self._rows.tables, kind)

    def _check(self) -> None:
        if self._ended:
            raise RuntimeError("this view has ended: it is for use inside of its query or transaction only")


class RowsTransaction(RowsView, Transaction):
    """A transaction over rows, which records what it did."""

    def __init__(self, rows: Rows, before: Revision) -> None:
        """Begin after a revision; that of the transaction is the next one."""
        super().__init__(rows, before.next())
        self.changes: list[Change] = []

    @property
    def result(self) -> Revision:
        """Return the revision that the transaction has, also after its end."""
        return self._revision

    def put(self, /, *records: Record) -> None:
        """Write records whole, over earlier ones with the same key."""
        self._check()
        start = 0
        for index in range(1, len(records) + 1):
            if index == len(records) or type(records[index]) is not type(records[start]):
                self._put_run(records[start:index])
                start = index

    def put_columns(self, kind: str, columns: Columns, /) -> None:
        """Write many records of one kind given by column."""
        table = self._table(kind)
        block = table.block_from(columns)
        if table.kind.type is Setting:  # the term may be among them
            self.put(*block.records())
        elif block.count:
            self._put(block, None)

    def delete(self, kind: str, /, *keys: str, pruned: bool = False) -> None:
        """Remove records; a key that is not there is passed over."""
        table = self._table(kind)
        stored = list(dict.fromkeys(key for key in map(table.stored_key, keys) if key is not None))
        gone = self._rows.delete(table, stored) if stored else []
        if gone:
            self.changes.append(Delete(kind, tuple(map(table.shown_key, gone)), pruned))

    def _put_run(self, records: tuple[Record, ...]) -> None:
        """Write records of one type."""
        kind = KIND_OF.get(type(records[0]))
        if kind is None:
            raise TypeError(f"{records[0]!r:.200} is not a record")
        block = self._table(kind.name).block_of(records)
        for record in records:
            if isinstance(record, Setting) and record.key == TERM_KEY:
                self._raise_term(record.value)
        self._put(block, records)

    def _raise_term(self, term: object) -> None:
        if type(term) is not int or term < self._revision.term:
            raise ValueError(f"the term {self._revision.term} cannot become {term!r}: it is a number, and only rises")
        self._revision = Revision(term, self._revision.number)

    def _put(self, block: Block, records: tuple[Record, ...] | None) -> None:
        self._rows.put(block, records)
        self.changes.append(BlockPut(block, records))


def run_over(view: V, function: Callable[[V], T]) -> T:
    """Run a query or a transaction.

    Raises:
        TypeError: It is a coroutine function: a transaction cannot span an await.

    """
    value = function(view)
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError(f"a query or transaction is a plain function, and {function!r} is async")
    return value
