"""Groups of writes: what they take, and what becomes of them when the disk fails."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import apsw
import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.errors import KhonsuError, StoreError, StoreFull
from khonsu.stores.sqlite import SQLiteStore
from khonsu.testing.store_samples import allocation, setting
from tests.stores.faulty import FaultyDisk, Patient, Refusing
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from pathlib import Path

    from khonsu.abc.store import ChangeList, Commit, Store, Transaction, View

pytestmark = pytest.mark.anyio


def settings(view: View) -> dict[str, object]:
    """Return all settings."""
    return {record.key: record.value for record in view.find("setting")}  # type: ignore[union-attr]


class Aside(Exception):
    """Ends a transaction that only kept the thread busy."""


async def write_together(
    store: Store, *transactions: Callable[[Transaction], Any]
) -> list[Commit[Any] | BaseException]:
    """Hand over transactions while another one is under way, so that they are one group; return what came of each."""
    busy, gate = anyio.Event(), threading.Event()
    outcomes: dict[int, Commit[Any] | BaseException] = {}
    token = anyio.lowlevel.current_token()

    def wait(_: Transaction) -> None:
        anyio.from_thread.run_sync(busy.set, token=token)
        gate.wait()
        raise Aside

    async def write(index: int, transaction: Callable[[Transaction], Any]) -> None:
        try:
            outcomes[index] = await store.write(transaction)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            outcomes[index] = error

    async with anyio.create_task_group() as group:
        group.start_soon(write, -1, wait)
        await busy.wait()
        for index, transaction in enumerate(transactions):
            group.start_soon(write, index, transaction)
            await anyio.wait_all_tasks_blocked()
        gate.set()
    return [outcomes[index] for index in range(len(transactions))]


def errors(outcomes: Sequence[object]) -> list[type]:
    """Return the types of the errors among outcomes."""
    return [type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)]


@pytest.fixture
def disk() -> FaultyDisk:
    """Return a disk that fails on demand."""
    return FaultyDisk()


@pytest.fixture
async def store(tmp_path: Path, disk: FaultyDisk) -> AsyncGenerator[SQLiteStore, None]:
    """Yield an open store on that disk, with a setting in it."""
    async with SQLiteStore(tmp_path / "state.db", database=disk.database) as made:
        await made.write(put_setting("a", 0))
        yield made


async def refusing_store(path: Path) -> tuple[SQLiteStore, list[Refusing]]:
    """Return a store, and where its database will be."""
    made: list[Refusing] = []

    def database(*arguments: Any, **options: Any) -> Refusing:
        made.append(Refusing(*arguments, **options))
        return made[-1]

    return SQLiteStore(path, database=database), made


async def patient_store(path: Path) -> tuple[SQLiteStore, list[Patient]]:
    """Return a store, and where its database will be."""
    made: list[Patient] = []

    def database(*arguments: Any, **options: Any) -> Patient:
        made.append(Patient(*arguments, **options))
        return made[-1]

    return SQLiteStore(path, database=database), made


# --------------------------------------------------------------------------------------------------------------- groups


async def test_writes_that_wait_together_cost_one_commit(tmp_path: Path) -> None:
    """A hundred waiting writes take one statement for each table, one for the feed, and one commit."""
    store, databases = await patient_store(tmp_path / "state.db")
    async with store:
        statements = databases[0].statements
        writes = [put(setting(f"k{n}", n), allocation(n)) for n in range(100)]
        statements.clear()
        assert errors(await write_together(store, *writes)) == []
        tables = [sql.split('"')[1] for sql in statements if sql.startswith("INSERT")]
        assert tables == ["setting", "allocation", "changes"]
        assert [sql for sql in statements if not sql.startswith("INSERT")] == [
            *["BEGIN IMMEDIATE", "ROLLBACK"],
            *["BEGIN IMMEDIATE", "COMMIT"],
        ]
        assert len(await store.read(lambda view: view.find("allocation"))) == 100


async def test_a_plan_is_one_statement(tmp_path: Path) -> None:
    """A thousand rows take as many statements as ten, by column or as records."""
    store, databases = await patient_store(tmp_path / "state.db")
    async with store:
        counts = []
        for rows in (10, 1000):
            databases[0].statements.clear()
            await store.write(put(*map(allocation, range(rows))))
            counts.append(len(databases[0].statements))
        assert counts == [4, 4]


async def test_nobody_hears_of_a_write_before_it_is_on_the_disk(tmp_path: Path) -> None:
    """Until the commit has returned, no caller has a reply and no watcher has a change."""
    store, databases = await patient_store(tmp_path / "state.db")
    heard: list[object] = []

    async def watch() -> None:
        heard.extend(await take(store, ZERO, 1))

    async def write() -> None:
        heard.append(await store.write(put_setting("a")))

    async with store, anyio.create_task_group() as group:
        database = databases[0]
        database.gate.clear()
        database.reached.clear()
        group.start_soon(watch)
        group.start_soon(write)
        await anyio.to_thread.run_sync(database.reached.wait)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert heard == []
        database.gate.set()
    assert len(heard) == 2


async def test_one_of_a_group_fails_alone(store: SQLiteStore) -> None:
    """In a group, what one transaction raises undoes only that, whether it read what it wrote or not."""

    def blind(transaction: Transaction) -> None:
        transaction.put(setting("blind"), setting("a", "blind"))
        raise LookupError

    def sighted(transaction: Transaction) -> None:
        transaction.put(setting("sighted"))
        transaction.delete("setting", "a", "b")
        transaction.put(setting("a", "sighted"))
        assert settings(transaction) == {"a": "sighted", "c": None, "sighted": None}
        raise KeyboardInterrupt

    def last(transaction: Transaction) -> int:
        transaction.put(setting("d"))
        return len(transaction.find("setting"))

    outcomes = await write_together(store, put_setting("b"), blind, put_setting("c"), sighted, last)
    assert errors(outcomes) == [LookupError, KeyboardInterrupt]
    assert await store.read(settings) == {"a": 0, "b": None, "c": None, "d": None}
    assert [found.revision.number for found in await take(store, ZERO, 4)] == [1, 2, 3, 4]
    value = outcomes[-1]
    assert not isinstance(value, BaseException)
    assert value.value == 4


async def test_a_group_that_only_fails_commits_nothing(store: SQLiteStore) -> None:
    """When every transaction of a group raises, there is no revision, and the store goes on."""

    def broken(transaction: Transaction) -> None:
        transaction.put(setting("a", 1))
        raise LookupError

    assert errors(await write_together(store, broken, broken)) == [LookupError, LookupError]
    assert (await store.write(put_setting("b"))).revision == Revision(0, 2)


# --------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("operation", "error", "expected"),
    [
        ("write", apsw.FullError, StoreFull),
        ("write", apsw.IOError, StoreError),
        ("sync", apsw.IOError, StoreError),
    ],
)
async def test_a_failed_commit_fails_its_group(
    store: SQLiteStore, disk: FaultyDisk, operation: str, error: type[Exception], expected: type[StoreError]
) -> None:
    """When the disk fails, all writes of the group fail and leave nothing; reads and later writes go on."""

    def own_error(transaction: Transaction) -> None:
        transaction.put(setting("own"))
        raise LookupError

    disk.fail(operation, "-wal", error)
    outcomes = await write_together(store, put_setting("a", 1), own_error, put_setting("b", 1), put(allocation(1)))
    assert errors(outcomes) == [expected, LookupError, expected, expected]
    assert len({id(outcome) for outcome in outcomes}) == 4
    assert await store.read(settings) == {"a": 0}
    assert await store.read(lambda view: view.revision) == Revision(0, 1)
    again = await store.write(put_setting("b", 2))
    assert again.revision == Revision(0, 2)
    assert [found.revision for found in await take(store, ZERO, 2)] == [Revision(0, 1), Revision(0, 2)]


@pytest.mark.parametrize("reads", [True, False])
async def test_what_could_not_even_be_undone_is_not_seen(tmp_path: Path, reads: bool) -> None:
    """When commit and rollback both fail, nobody reads what was not written, and revisions go on without a gap."""
    store, databases = await refusing_store(tmp_path / "state.db")
    async with store:
        await store.write(put_setting("a", 0))
        databases[0].refused = {"COMMIT": 1, "ROLLBACK": 1}
        with pytest.raises(StoreError, match="as the test wants it"):
            await store.write(put_setting("a", 1))
        if reads:
            assert await store.read(lambda view: (view.revision, settings(view))) == (Revision(0, 1), {"a": 0})
        assert (await store.write(put_setting("b", 2))).revision == Revision(0, 2)
        assert [found.revision.number for found in await take(store, ZERO, 2)] == [1, 2]
        assert await store.read(settings) == {"a": 0, "b": 2}


@pytest.mark.parametrize("reads", [True, False])
async def test_a_watcher_gets_what_was_written_though_the_disk_said_no(tmp_path: Path, reads: bool) -> None:
    """A commit that is on the disk though it failed, and cannot be looked at, reaches watchers when it is found."""
    store, databases = await refusing_store(tmp_path / "state.db")
    async with store, store.watch(ZERO) as lists:
        await store.write(put_setting("term", 1))
        assert (await anext(lists)).revision == Revision(1, 1)
        databases[0].refused, databases[0].done = {"COMMIT": 1, "SELECT": 1}, {"COMMIT"}
        with pytest.raises(StoreError, match="as the test wants it"):
            await store.write(put_setting("term", 2))
        if reads:
            found = await store.read(lambda view: view.revision)
            assert found == Revision(2, 2)
            assert [changes.revision for changes in await take(store, Revision(1, 1), 1)] == [found]
            async with store.watch(found):
                assert (await anext(lists)).revision == found
        else:
            assert (await store.write(put_setting("b", 2))).revision == Revision(2, 3)
            assert [(await anext(lists)).revision for _ in range(2)] == [Revision(2, 2), Revision(2, 3)]
            async with store.watch(Revision(2, 2)) as again:
                assert (await anext(again)).revision == Revision(2, 3)


async def test_what_was_acknowledged_outlives_a_failed_commit(tmp_path: Path, disk: FaultyDisk) -> None:
    """A file on which commits failed in between holds all that succeeded."""
    path = tmp_path / "state.db"
    async with SQLiteStore(path, database=disk.database) as store:
        for number in range(20):
            disk.fail(*(("sync", "-wal", apsw.IOError) if number % 3 == 1 else ("none", "", apsw.IOError)))
            try:
                await store.write(put_setting(f"k{number}", number))
            except StoreError:
                assert number % 3 == 1
    async with SQLiteStore(path) as again:
        assert await again.read(settings) == {f"k{number}": number for number in range(20) if number % 3 != 1}


async def test_a_transaction_cannot_hide_that_the_disk_failed(tmp_path: Path, disk: FaultyDisk) -> None:
    """A failed read inside a transaction fails the group, though the transaction caught the error."""
    path = tmp_path / "state.db"
    async with SQLiteStore(path) as store:
        await store.write(put(*map(allocation, range(100_000, 103_000))))
    caught: list[KhonsuError] = []

    def hide(transaction: Transaction) -> None:
        transaction.put(setting("hidden"))
        try:
            transaction.find("allocation")
        except StoreError as error:
            caught.append(error)

    async with SQLiteStore(path, database=disk.database) as store:
        disk.fail("read", "state.db", apsw.IOError)
        outcomes = await write_together(store, put_setting("a"), hide, put_setting("b"))
        assert errors(outcomes) == [StoreError] * 3
        assert len(caught) == 1
        assert await store.read(settings) == {}
        assert len(await store.read(lambda view: view.find("allocation"))) == 3000
        assert (await store.write(put_setting("a"))).revision == Revision(0, 2)


async def test_reads_fail_alone(tmp_path: Path, disk: FaultyDisk) -> None:
    """A read that the disk fails says so, and the next one succeeds."""
    path = tmp_path / "state.db"
    async with SQLiteStore(path) as store:
        await store.write(put(*map(allocation, range(3000))))
    async with SQLiteStore(path, database=disk.database) as store:
        disk.fail("read", "state.db", apsw.IOError)
        with pytest.raises(StoreError, match=r"reading or writing .*state\.db failed"):
            await store.read(lambda view: view.find("allocation"))
        assert len(await store.read(lambda view: view.find("allocation"))) == 3000


async def test_a_checkpoint_that_fails_loses_nothing(tmp_path: Path, disk: FaultyDisk) -> None:
    """While the log cannot go into the file, writes go on into the log, and all is there in the end."""
    path = tmp_path / "state.db"
    async with SQLiteStore(path, database=disk.database) as store:
        disk.fail("write", "state.db", apsw.FullError, times=10**9)
        for number in range(30):
            await store.write(put_setting(f"k{number}", "x" * 1_000_000))
        disk.fail("none", "", apsw.IOError)
        await store.write(put_setting("last"))
    async with SQLiteStore(path) as again:
        assert len(await again.read(settings)) == 31


async def test_the_order_of_arrival(store: SQLiteStore) -> None:
    """Writes that are handed over in an order are done in that order."""
    outcomes = await write_together(store, *[put_setting("a", number) for number in range(50)])
    numbers = [outcome.revision.number for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert numbers == list(range(2, 52))
    found: list[ChangeList] = await take(store, Revision(0, 1), 50)
    assert [change.records[0].value for changes in found for change in changes.changes] == list(range(50))  # type: ignore[union-attr]


async def test_leaving_does_what_has_arrived(tmp_path: Path) -> None:
    """Writes that were handed over before the store was left are done, also when its block is cancelled."""
    path = tmp_path / "state.db"
    store = SQLiteStore(path)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group, store:
            for number in range(20):
                group.start_soon(store.write, put_setting(f"k{number}", number))
            await anyio.lowlevel.checkpoint()
            await store.write(put_setting("own"))
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    async with SQLiteStore(path) as again:
        assert len(await again.read(settings)) == 21


async def test_an_error_in_the_block_stays_as_it_is(tmp_path: Path) -> None:
    """What the block of a store raises comes out of it bare, and the file is closed in order."""

    async def block() -> None:
        async with SQLiteStore(tmp_path / "state.db") as store:
            await store.write(put_setting("a"))
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await block()
    async with SQLiteStore(tmp_path / "state.db") as store:
        assert await store.read(settings) == {"a": None}
