"""The state: the tables, and the one way in which they change.

A write is decided on the event loop, against the tables, without an await in between. It changes the tables at once
and joins the open group; one task hands group after group to the store, each as one revision. Replies wait until what
they say is durable (`settled`), and watchers hear of a scope only then. When a commit fails, all that was decided on
top of it fails too, and the tables are rebuilt from the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio

from khonsu.abc.store import Change, Delete, Put, Store, Transaction, View
from khonsu.control.batch import Batch
from khonsu.control.group import Group
from khonsu.control.placed import Placed
from khonsu.control.scopes import Scopes, scopes_of, scopes_of_placed
from khonsu.control.tables import ACTIVE, HOT_KINDS, Tables
from khonsu.core.ids import key_text, make_key
from khonsu.core.records import Record, Setting, Time, key_of
from khonsu.core.revision import ZERO, Revision
from khonsu.env import Env
from khonsu.errors import KhonsuError, StoreError, Unavailable, ensure

if TYPE_CHECKING:
    from khonsu.control.columns import Columns

T = TypeVar("T")

Moves = Sequence[tuple[Record | None, Record | None]]
"""What a batch did to the hot records: before and after, None where there was or is nothing."""

KEYS_RESERVED = 100_000
ROWS_PER_READ = 250
REBUILD_PAUSE_SECONDS = 0.5


class State:
    """The cluster in memory, over a store that is open. Used from the event loop only."""

    def __init__(self, store: Store, env: Env) -> None:
        """Start empty; `load` fills it."""
        self.env = env
        self.tables = Tables()
        self.preparers: list[Callable[[Batch], None]] = []
        """Called with every batch before it is applied: they complete it."""
        self.listeners: list[Callable[[Moves], None]] = []
        """Called after every batch: queues and caches follow here."""
        self.rebuilt: list[Callable[[], None]] = []
        """Called when the tables were rebuilt: what was derived from them is derived again."""
        self._store = store
        self._epoch = env.now() - env.monotonic()
        self._columns: Columns | None = None
        self._open = Group(ZERO)
        self._flying: Group | None = None
        self._work = anyio.Event()
        self._failed: KhonsuError | None = Unavailable("the control plane is starting")
        self._durable = ZERO
        self._scopes = Scopes()
        self._sequence = 0
        self._reserved = 0

    def now(self) -> Time:
        """Return the time in seconds since 1970 UTC, by a clock that follows the wall clock of the start.

        It does not step with the wall clock: no lease, back-off or deadline depends on somebody setting the time.
        """
        return Time(self._epoch + self.env.monotonic())

    # Reading.

    @property
    def durable(self) -> Revision:
        """Return the last revision that is on the disk."""
        return self._durable

    @property
    def term(self) -> int:
        """Return the present term."""
        return self._durable.term

    @property
    def open_revision(self) -> Revision:
        """Return the revision that the next decision will have."""
        return self._open.revision

    @property
    def closed(self) -> Revision:
        """Return the revision up to which the tables are complete: no decision will join it any more.

        This is what a reader is told. The tables may be ahead of it, so that a watch from it may repeat something, and
        never misses anything.
        """
        return Revision(self._open.revision.term, self._open.revision.number - 1)

    @property
    def columns(self) -> Columns:
        """Return the fleet as columns; made at the first evaluation, since numpy costs memory."""
        if self._columns is None:
            from khonsu.control.columns import Columns

            self._columns = Columns(self.tables)
        return self._columns

    async def settled(self) -> Revision:
        """Wait until all that can be seen in the tables now is durable, and return that revision.

        Raises:
            StoreError: It was not written; what was seen is undone.

        """
        if self._open.changes:
            return await self._open.durable()
        if self._flying is not None:
            return await self._flying.durable()
        if self._failed is not None:
            raise self._failed
        return self._durable

    async def whole(self) -> None:
        """Wait until the tables are what the store has, and what was decided since: not while they are rebuilt."""
        await self._scopes.wait_until(lambda: self._failed is None, "whole")

    def touched(self, *scopes: str) -> Revision:
        """Return the last revision that touched one of the scopes, or a later one for what was not touched lately."""
        return self._scopes.touched(*scopes)

    def newer(self, after: Revision, *scopes: str) -> bool:
        """Return whether one of the scopes has a durable revision newer than `after`."""
        return after < min(self.touched(*scopes), self._durable)

    async def wait_until(self, condition: Callable[[], bool], *scopes: str) -> None:
        """Wait until a condition holds, looking again whenever one of the scopes is touched or woken."""
        await self._scopes.wait_until(condition, *scopes)

    def wake(self, scope: str) -> None:
        """Have those who wait for a scope look again."""
        self._scopes.wake(scope)

    async def read(self, query: Callable[[View], T]) -> T:
        """Read what the tables do not hold: history, and answers to repeated requests."""
        with _told():
            return await self._store.read(query)

    async def page(self, kind: str, after: str | None, limit: int, **equals: object) -> Sequence[Record]:
        """Read the next records of a kind behind a key, in the order of their keys."""
        return await self.read(partial(_page, kind=kind, after=after, limit=limit, equals=equals))

    @property
    def store(self) -> Store:
        """Return the store itself, for its feed."""
        return self._store

    @property
    def keys_given(self) -> int:
        """Return how many keys were given in this term."""
        return self._sequence

    def key_at(self, sequence: int) -> str | None:
        """Return a key of this term by its number, or None for what is before the first."""
        return key_text(make_key(self._open.revision.term, sequence)) if sequence > 0 else None

    # Writing.

    def new_id(self) -> str:
        """Return an id that was never used."""
        return key_text(self.new_keys(1))

    def new_keys(self, count: int) -> int:
        """Return the first of some keys that were never used; the others follow it."""
        first = self._sequence + 1
        self._sequence += count
        if self._sequence > self._reserved:
            self._reserved = self._sequence + KEYS_RESERVED
            self._open.changes.append(Put("setting", (Setting(key="sequence", value=self._reserved),)))
            self._work.set()
        return make_key(self._open.revision.term, first)

    def batch(self) -> Batch:
        """Begin a decision; hand it to `apply` without an await in between.

        Raises:
            StoreError: The last commit failed and the tables are being rebuilt.

        """
        if self._failed is not None:
            raise self._failed
        return Batch(self, self.now())

    def apply(self, batch: Batch) -> Group:
        """Make a decision take effect in memory, and send it to the disk. Await `durable()` of what is returned."""
        ensure(batch.revision == self._open.revision, "a batch is applied before anything is awaited")
        for prepare in self.preparers:
            prepare(batch)
        try:
            return self._apply(batch)
        except BaseException as error:
            # A part of it may be in the tables, and nothing of it goes to the disk.
            self._failed = StoreError(f"a decision failed half-way: {type(error).__name__}: {error}")
            self._work.set()
            raise

    def _apply(self, batch: Batch) -> Group:
        changes = batch.changes
        moves: list[tuple[Record | None, Record | None]] = []
        scopes: dict[str, None] = {}
        for change in changes:
            if isinstance(change, Placed):
                self._place(change)
                scopes.update(dict.fromkeys(scopes_of_placed(change)))
            else:
                moves.extend(self._take(change))
        if self._columns is not None:
            self._columns.follow(moves)
        for before, after in moves:
            scopes.update(dict.fromkeys(scopes_of(before, after, batch.revision.number)))
        self._scopes.touch(scopes, batch.revision)
        self._open.scopes.update(scopes)
        self._open.changes.extend(changes)
        if self._open.changes:
            self._work.set()
        for listener in self.listeners:
            listener(moves)
        return self._open

    def _place(self, placed: Placed) -> None:
        self.tables.allocations.add(placed)
        if self._columns is not None:
            self._columns.place(placed)

    def _take(self, change: Change) -> Iterable[tuple[Record | None, Record | None]]:
        """Change the tables, and tell what changed."""
        if isinstance(change, Delete):
            gone = [self.tables.find(change.kind, key) for key in change.keys]
            for key in change.keys:
                self.tables.delete(change.kind, key)
            return [(record, None) for record in gone if record is not None]
        moves: list[tuple[Record | None, Record | None]] = []
        find, put, kind = self.tables.find, self.tables.put, change.kind
        for record in change.records:
            moves.append((find(kind, key_of(record)), record))
            put(record)
        return moves

    async def commit(self, batch: Batch) -> Revision:
        """Apply a batch and wait until it is durable."""
        group = self.apply(batch)
        # A group without changes is not written, and waiting for it would last until somebody else writes.
        return await (group.durable() if group.changes else self.settled())

    # The loop.

    async def load(self) -> None:
        """Build the tables from the store."""
        tables = Tables()
        revision = await self._store.read(lambda view: view.revision)
        for kind in HOT_KINDS:
            await self._load_kind(tables, kind)
        for status in ACTIVE:
            await self._load_kind(tables, "evaluation", status=status)
        self.tables = tables
        self._columns = None
        self._durable = revision
        self._scopes.begin(revision)
        self._open = Group(revision.next())
        stored = tables.settings.get("sequence")
        self._reserved = int(stored.value) if stored is not None else 0
        self._sequence = max(self._sequence, self._reserved)
        self._failed = None
        for derive in self.rebuilt:
            derive()

    async def _load_kind(self, tables: Tables, kind: str, **equals: object) -> None:
        """Read all records of a kind, page by page."""
        after: str | None = None
        while True:
            page = await self.page(kind, after, ROWS_PER_READ, **equals)
            tables.load(page)
            if len(page) < ROWS_PER_READ:
                return
            after = key_of(page[-1])

    async def run(self) -> None:
        """Hand group after group to the store, for ever."""
        try:
            while True:
                await self._work.wait()
                self._work = anyio.Event()
                if isinstance(self._failed, StoreError):
                    await self._undo(self._open, self._failed)
                elif self._open.changes:
                    await self._write_group()
        finally:
            for group in (self._flying, self._open):
                if group is not None and not group.done.is_set():
                    group.end(Unavailable("the control plane is stopping"))

    async def _write_group(self) -> None:
        group = self._flying = self._open
        self._open = Group(group.revision.next())
        try:
            with _told():
                commit = await self._store.write(lambda transaction: _write(transaction, group.changes))
                ensure(commit.revision == group.revision, "the store and the state count revisions alike")
        except StoreError as error:
            await self._undo(group, error)
        else:
            self._flying = None
            self._durable = group.revision
            group.end()
            self._scopes.wake_each(group.scopes)

    async def _undo(self, group: Group, error: StoreError) -> None:
        """Fail a group and all that was decided on top of it, and rebuild the tables."""
        self._failed = error
        self._flying = None
        group.end(error)
        self._open.end(error)
        while not await self._rebuild():
            await self.env.sleep(REBUILD_PAUSE_SECONDS)
        self._scopes.wake_all()

    async def _rebuild(self) -> bool:
        try:
            with _told():
                await self.load()
        except StoreError as error:
            self._failed = error
            return False
        return True


@contextmanager
def _told() -> Iterator[None]:
    """Have all that goes wrong in a store told as its error: it may be a stranger's, and those who wait must hear."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"the store failed: {type(error).__name__}: {error}") from error


def _page(view: View, *, kind: str, after: str | None, limit: int, equals: Mapping[str, object]) -> Sequence[Record]:
    return view.find(kind, after_key=after, limit=limit, **equals)


def _write(transaction: Transaction, changes: Iterable[Change | Placed]) -> None:
    """Write a group; runs on the store's thread."""
    for change in _merged(changes):
        match change:
            case Placed():
                transaction.put_columns("allocation", change.columns())
            case Put():
                transaction.put(*change.records)
            case Delete():
                transaction.delete(change.kind, *change.keys, pruned=change.pruned)


def _merged(changes: Iterable[Change | Placed]) -> list[Change | Placed]:
    """Return the changes with the puts of a kind in one statement, as far as the order of a kind allows."""
    merged: list[tuple[str, dict[str, Record]] | Delete | Placed] = []
    joined: dict[str, dict[str, Record]] = {}
    for change in changes:
        if isinstance(change, Put):
            if change.kind not in joined:
                joined[change.kind] = {}
                merged.append((change.kind, joined[change.kind]))
            joined[change.kind].update((key_of(record), record) for record in change.records)
        else:
            # What is put after it may be about these.
            joined.pop("allocation" if isinstance(change, Placed) else change.kind, None)
            merged.append(change)
    return [Put(one[0], tuple(one[1].values())) if isinstance(one, tuple) else one for one in merged]
