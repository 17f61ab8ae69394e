"""The rows of the state file as a group of transactions sees them: what they put is written at the end, all at once.

Rows that were put wait until the group ends, or until something is read or deleted; then they are written first. So a
group of writes that only put takes one statement for each table, however many writes it holds. To undo one of them
means to drop its rows, or, where some of them were written already, to go back to a savepoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from khonsu.core.records import Record
from khonsu.errors import StoreError
from khonsu.stores.bulk import Database, insert_blocks
from khonsu.stores.errors import store_errors
from khonsu.stores.schema import ModelClass, Schema
from khonsu.stores.tables import Block, Table
from khonsu.stores.views import Key, Rows, Wanted


class SQLiteRows(Rows):
    """The rows of an open state file. A failure of SQLite inside a transaction is remembered: it fails the group.

    Args:
        database: The open database.
        schema: Its tables.
        path: Its path, for messages.

    """

    def __init__(self, database: Database, schema: Schema, path: str) -> None:
        """Begin outside of any transaction."""
        self.tables: Mapping[str, Table] = schema.tables
        self.failure: StoreError | None = None
        self._database = database
        self._path = path
        self._models = schema.models(database)
        self._selects = {
            name: 'SELECT "' + '","'.join(table.names) + f'" FROM "{name}"' for name, table in self.tables.items()
        }
        self._waiting: list[Block] = []
        self._own = 0  # where in `_waiting` the present write begins
        self._saved = False

    # Of a group.

    def begin(self) -> None:
        """Begin a group."""
        self.rollback()  # where that of a failed group failed, too
        self.failure = None
        self._saved = False
        self._sql("BEGIN IMMEDIATE")

    def begin_write(self) -> None:
        """Begin a write of the group."""
        self._own = len(self._waiting)

    def keep_write(self) -> None:
        """Let the present write stand."""
        if self._saved:
            self._sql("RELEASE write")
            self._saved = False

    def undo_write(self) -> None:
        """Undo the present write only."""
        if self._saved:
            self._waiting.clear()  # those of earlier writes were written before the savepoint
            self._sql("ROLLBACK TO write")
            self._sql("RELEASE write")
            self._saved = False
        else:
            del self._waiting[self._own :]

    def flush(self) -> None:
        """Write what waits, with one statement for each table as far as it goes."""
        by_table: dict[str, list[Block]] = {}
        for block in self._waiting:
            by_table.setdefault(block.table.name, []).append(block)
        for blocks in by_table.values():
            insert_blocks(self._database, blocks)
        self._waiting.clear()

    def rollback(self) -> None:
        """End the group without a trace."""
        self._waiting.clear()
        if not self._database.is_closed() and self._database.connection().in_transaction:
            self._sql("ROLLBACK")

    # Of views and transactions.

    def get(self, table: Table, key: Key) -> Record | None:
        """Return one record, or None."""
        with self._watched():
            self._write_first()
            found = self._sql(f'{self._selects[table.name]} WHERE "{table.kind.key}" = ?', key).fetchall()
        return table.record(found[0]) if found else None

    def find(self, table: Table, after: Key | None, limit: int | None, wanted: Sequence[Wanted]) -> list[Record]:
        """Return the records that meet all conditions, in the order of their keys."""
        model: ModelClass = self._models[table.name]
        key = getattr(model, table.kind.key)
        inside = [w for w in wanted if w.stored is None or w.column.form.compared]
        outside = [w for w in wanted if w not in inside]  # equal values may be stored as different JSON
        query = model.select(*(getattr(model, name) for name in table.names)).order_by(key)
        for condition in inside:
            query = query.where(getattr(model, condition.column.name) == condition.stored)
        if after is not None:
            query = query.where(key > after)
        if limit is not None and not outside:
            query = query.limit(limit)
        sql, parameters = query.sql()
        with self._watched():
            self._write_first()
            rows = self._sql(sql, *parameters).fetchall()
        records = map(table.record, rows)
        return list(islice((r for r in records if all(w.met_by(r) for w in outside)), limit))

    def put(self, block: Block, records: tuple[Record, ...] | None) -> None:
        """Keep the rows until they are written."""
        self._waiting.append(block)

    def delete(self, table: Table, keys: list[Key]) -> list[Key]:
        """Remove records, and return the keys of those that were there."""
        name, key = table.name, table.kind.key
        with self._watched():
            self._write_first(always=True)
            sql = f'DELETE FROM "{name}" WHERE "{key}" IN (SELECT value FROM json_each(?)) RETURNING "{key}"'
            gone = {row[0] for row in self._sql(sql, json.dumps(keys)).fetchall()}
        return [key for key in keys if key in gone]

    def _write_first(self, *, always: bool = False) -> None:
        """Write what waits, what the present write put behind a savepoint."""
        if not self._saved and (always or self._waiting):
            own = self._waiting[self._own :]
            del self._waiting[self._own :]
            self.flush()
            self._sql("SAVEPOINT write")
            self._saved = True
            self._waiting.extend(own)
        self.flush()

    def _sql(self, sql: str, *parameters: object) -> Any:
        return self._database.execute_sql(sql, parameters)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Remember a failure of the store, so that a transaction cannot hide it from its group."""
        try:
            with store_errors(self._path):
                yield
        except StoreError as error:
            self.failure = error
            raise
