"""The state file, from the store's own thread: groups of writes, reads, and the way in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import anyio
from attrs import define, field, frozen

from khonsu.abc.store import ChangeList, Commit, Transaction, View
from khonsu.core.revision import Revision
from khonsu.stores.bulk import Database
from khonsu.stores.errors import not_open, store_errors
from khonsu.stores.file import DatabaseClass, open_file
from khonsu.stores.history import History, Limits
from khonsu.stores.rows import SQLiteRows
from khonsu.stores.schema import Schema
from khonsu.stores.views import RowsTransaction, RowsView, run_over

T = TypeVar("T")


@define(eq=False)
class Write:
    """A write on its way: a transaction, then what came of it."""

    transaction: Callable[[Transaction], Any]
    done: anyio.Event = field(factory=anyio.Event)
    commit: Commit[Any] | None = None
    error: BaseException | None = None


@frozen
class Opened:
    """What a state file holds when it is opened."""

    terms: tuple[Revision, ...]
    """The first revision of each term in the history; the first of them is its base."""
    end: Revision


class Engine:
    """A state file. Every method runs on the one thread that opened it.

    Args:
        path: The path of the file.
        database: The class of the database.
        schema: The schema that it is brought to.
        limits: How much of the feed is kept.

    """

    def __init__(self, path: str, database: DatabaseClass, schema: Schema, limits: Limits) -> None:
        """Open nothing yet."""
        self._path = path
        self._class = database
        self._schema = schema
        self._limits = limits
        self._parts: tuple[Database, SQLiteRows, History] | None = None
        self.found: Opened | None = None
        """What the file held when it was last not known how a commit had ended; may be looked at from any thread.

        It may hold revisions that nobody was told of: of a commit that failed for its callers and is on the disk.
        """

    def open(self) -> Opened:
        """Open the file.

        Raises:
            StoreError: It is refused; nothing was changed.

        """
        database = open_file(self._path, self._class, self._schema)
        try:
            with store_errors(self._path):
                rows = SQLiteRows(database, self._schema, self._path)
                history = History(database, self._schema.tables, self._schema.version, self._limits)
        except BaseException:
            database.close()  # nobody else would, and the file stayed locked
            raise
        self._parts = database, rows, history
        return Opened(history.terms, history.end)

    def close(self) -> None:
        """Close the file; what the log holds goes into it.

        Raises:
            StoreError: SQLite could not do so. Nothing is lost: the log is read at the next opening.

        """
        if self._parts is not None:
            database, rows, _ = self._parts
            self._parts = None
            with store_errors(self._path):
                rows.rollback()
                database.close()

    def read(self, query: Callable[[View], T]) -> tuple[T, Revision]:
        """Run a query at the last durable revision, and return that too.

        Raises:
            StoreError: SQLite failed.
            Exception: What the query raised.

        """
        _, rows, history = self._open_parts()
        view = RowsView(rows, history.end)
        try:
            return run_over(view, query), history.end
        finally:
            view.end()

    def history(self, after: Revision) -> Sequence[ChangeList]:
        """Read some of the change lists after a revision.

        Raises:
            HistoryGone: They are pruned.

        """
        _, _, history = self._open_parts()
        with store_errors(self._path):
            return history.read(after)

    def commit(self, writes: Sequence[Write], at: float) -> Revision:
        """Run writes in their order and commit them as one group; each write gets its commit or its error.

        Args:
            writes: The writes. What one of them raises undoes only itself.
            at: The time, in seconds since 1970 UTC.

        Returns:
            The base of the history after it.

        Raises:
            StoreError: Nothing of the group was written; the writes without an error of their own have none.

        """
        database, rows, history = self._open_parts()
        before = history.end
        try:
            with store_errors(self._path):
                rows.begin()
                lists = self._run(writes, rows, before)
                if lists:
                    rows.flush()
                    history.add(lists, at)
                    database.execute_sql("COMMIT")
                else:
                    rows.rollback()
        except BaseException:
            history.doubt()
            with store_errors(self._path):
                rows.rollback()
                history.refresh()
            if history.end != before:
                # It was committed after all: what failed came after it, when the log was moved into the file.
                return history.base
            raise
        return history.base

    def _run(self, writes: Sequence[Write], rows: SQLiteRows, before: Revision) -> list[ChangeList]:
        """Run the transactions of a group, and return the change lists of those that succeeded."""
        lists: list[ChangeList] = []
        for write in writes:
            running = RowsTransaction(rows, before)
            rows.begin_write()
            try:
                value = run_over(running, write.transaction)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
                write.error = error
            running.end()
            if rows.failure is not None:
                write.error = None
                raise rows.failure
            if write.error is not None:
                rows.undo_write()
                continue
            rows.keep_write()
            before = running.result
            write.commit = Commit(value, before, tuple(running.changes))
            lists.append(ChangeList(before, write.commit.changes))
        return lists

    def _open_parts(self) -> tuple[Database, SQLiteRows, History]:
        """Return the parts, after what a failed commit left open was undone and it is known where the history ends."""
        if self._parts is None:
            raise not_open()
        _, rows, history = self._parts
        if history.doubtful:
            with store_errors(self._path):
                rows.rollback()
                history.refresh()
            self.found = Opened(history.terms, history.end)
        return self._parts
