"""The store in a SQLite file: one connection on one thread, and group commits without a timer."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar, cast

import anyio
from anyio.abc import TaskStatus
from peewee import SqliteDatabase

from khonsu.abc.store import ChangeList, Commit, Store, Transaction, View
from khonsu.core.revision import Revision
from khonsu.env import Env, SystemEnv, Worker
from khonsu.errors import StoreError
from khonsu.scopes import Lifetime, bare_task_group, run_in_order
from khonsu.stores.engine import Engine, Write
from khonsu.stores.errors import not_open
from khonsu.stores.feed import Feed
from khonsu.stores.file import DatabaseClass, sqlite_warnings
from khonsu.stores.history import BYTES_MAX, SECONDS_MAX, Limits
from khonsu.stores.schema import Schema

T = TypeVar("T")

GROUP_WRITES_MAX = 1_000
"""So many writes at most succeed or fail together."""


class SQLiteStore(Lifetime, Store):
    """A store in one SQLite file, in use by one process at a time.

    A write that was handed over is done, whatever becomes of its caller, and returns when it is on the disk. All writes
    that arrive while one commit is under way are the next one: a group that is durable, or not, as a whole. When it
    fails, the file is as it was before, reads go on, and the next group tries anew.

    Args:
        path: The file; it is made, readable by its owner only, if it is not there. Its folder has to be.
        env: The source of time and of the thread.
        database: The database class, peewee's own unless the disk is simulated.
        schema: The tables that the file has, or is brought to.
        history_seconds_max: The feed keeps changes so long,
        history_bytes_max: up to this size.

    """

    def __init__(
        self,
        path: Path | str,
        *,
        env: Env | None = None,
        database: DatabaseClass = SqliteDatabase,
        schema: Schema | None = None,
        history_seconds_max: float = SECONDS_MAX,
        history_bytes_max: int = BYTES_MAX,
    ) -> None:
        """Open nothing yet."""
        super().__init__()
        self.path = Path(path).absolute()
        self._env = env if env is not None else SystemEnv()
        limits = Limits(history_seconds_max, history_bytes_max)
        self._engine = Engine(str(self.path), database, schema if schema is not None else Schema(), limits)
        self._feed = Feed(self._history)
        self._worker: Worker | None = None
        self._queue: deque[Write] = deque()
        self._arrived: anyio.Event | None = None
        self._stopping = False
        self._commits = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is to be said of the SQLite that is used, for logs and `khonsu doctor`."""
        return sqlite_warnings()

    async def read(self, query: Callable[[View], T], /) -> T:
        """Run a query on the store's thread, between two groups."""
        value, revision = await self._open_worker().run(self._engine.read, query)
        self._catch_up()
        if self._commits:
            await self._feed.reached(revision.number)
        return value

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Run a transaction in the next group."""
        self._open_worker()
        write = Write(transaction)
        self._queue.append(write)
        self._wake()
        with anyio.CancelScope(shield=True):
            await write.done.wait()
        if write.error is not None:
            raise write.error
        return cast("Commit[T]", write.commit)

    def watch(self, after: Revision, /) -> AbstractAsyncContextManager[AsyncIterator[ChangeList]]:
        """Iterate over every durable change list after a revision."""
        self._open_worker()
        return self._feed.watch(after)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the file open until cancelled; then do the writes that have arrived, and close it."""
        await run_in_order(self._serve, task_status)

    async def _serve(self, started: Callable[[], None], stopping: anyio.Event) -> None:
        async with self._env.worker("store") as worker:
            opened = await worker.run(self._engine.open)
            try:
                self._feed.load(opened.terms, opened.end)
                self._feed.open()
                self._stopping = False
                self._worker = worker
                async with bare_task_group() as group:
                    group.start_soon(self._commit_groups, worker)
                    started()
                    await stopping.wait()
                    self._stopping = True
                    self._wake()
            finally:
                self._worker = None
                self._feed.close()
                await worker.run(self._engine.close)

    async def _commit_groups(self, worker: Worker) -> None:
        """Commit what has arrived whenever the last commit has ended, until told to stop."""
        while self._queue or not self._stopping:
            if not self._queue:
                self._arrived = anyio.Event()
                await self._arrived.wait()
                continue
            group = [self._queue.popleft() for _ in range(min(len(self._queue), GROUP_WRITES_MAX))]
            await self._commit(worker, group)

    async def _commit(self, worker: Worker, group: list[Write]) -> None:
        """Commit a group: first watchers see it, then callers hear of it."""
        self._commits = True
        try:
            base = await worker.run(self._engine.commit, group, self._env.now())
        except Exception as error:  # noqa: BLE001 - it belongs to those who wait for the group
            for write in group:
                write.error = write.error or _copy(error)
        else:
            self._catch_up()
            commits = [write.commit for write in group if write.commit is not None]
            self._feed.publish([ChangeList(commit.revision, commit.changes) for commit in commits], base)
        self._commits = False
        for write in group:
            write.done.set()

    def _catch_up(self) -> None:
        """Have watchers hear of a commit that failed for its callers and was found on the disk."""
        found = self._engine.found
        if found is not None:
            self._feed.catch_up(found.terms, found.end)

    def _wake(self) -> None:
        if self._arrived is not None:
            self._arrived.set()

    async def _history(self, after: Revision) -> list[ChangeList]:
        return list(await self._open_worker().run(self._engine.history, after))

    def _open_worker(self) -> Worker:
        if self._worker is None or self._stopping:
            raise not_open()
        return self._worker


def _copy(failure: Exception) -> Exception:
    """Return an error for one of many callers: an exception that is raised in several tasks tells of all of them."""
    if isinstance(failure, StoreError):
        copy = type(failure)(failure.message, hint=failure.hint)
        copy.__cause__ = failure
        return copy
    return failure
