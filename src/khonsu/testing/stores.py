"""What every store must do, as one check for whoever writes one. No test framework is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import anyio

from khonsu.abc.store import ChangeList, Delete, Put, Store, Transaction, View
from khonsu.core.records import KIND_OF, KINDS, Record, key_of
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone, StoreError
from khonsu.testing.store_samples import allocation, number, records, setting

MakeStore = Callable[[], Store]

TIME_SECONDS_MAX: Final = 60.0
WRITERS: Final = 8
WRITES: Final = 10


class StoreCheckFailed(AssertionError):
    """A store does not keep a promise of the interface."""


class _Broken(BaseException):
    """What a transaction raises in the check; no error that a store may take for one of its own."""


async def check_store(make: MakeStore, /, *, reopen: Callable[[Store], Store] | None = None) -> None:
    """Check that a store keeps the promises of `khonsu.abc.Store`.

    Args:
        make: Makes a store that is empty.
        reopen: Makes a store over what another one wrote, which was left; None if nothing outlives a store.

    Raises:
        StoreCheckFailed: It does not; says which promise.

    """
    with anyio.fail_after(TIME_SECONDS_MAX):
        for check in _CHECKS:
            async with make() as store:
                await check(store)
        await _check_closed(make())
        if reopen is not None:
            await _check_reopened(make(), reopen)


def _expect(promise: str, expected: object, found: object) -> None:
    if expected != found:
        raise StoreCheckFailed(f"{promise}: expected {expected!r:.500}, found {found!r:.500}")


async def _expect_error(
    promise: str, kinds: type[BaseException] | tuple[type[BaseException], ...], call: Awaitable[Any]
) -> None:
    try:
        await call
    except kinds:
        return
    raise StoreCheckFailed(f"{promise}: nothing was raised")


def _put(*records: Record) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.put(*records)


def _all(view: View) -> dict[str, Sequence[Record]]:
    """Return everything, by kind."""
    return {kind: list(found) for kind in KINDS if (found := view.find(kind))}


async def _watched(store: Store, after: Revision, count: int) -> list[ChangeList]:
    """Return the next change lists after a revision."""
    found: list[ChangeList] = []
    async with store.watch(after) as lists:
        async for changes in lists:
            found.append(changes)
            if len(found) == count:
                break
    return found


# ------------------------------------------------------------------------------------------------ records and revisions


async def _check_empty(store: Store) -> None:
    """Check what a new store is like."""
    _expect("a new store is at revision zero", ZERO, await store.read(lambda view: view.revision))
    _expect("a new store holds nothing", {}, await store.read(_all))
    _expect("a key that is not there gives None", None, await store.read(lambda view: view.get("job", "default/x")))
    _expect("a text that is no key gives None", None, await store.read(lambda view: view.get("node", "no id")))
    _expect("a value that nothing can have finds nothing", [], await store.read(_impossible))


def _impossible(view: View) -> list[Record]:
    return list(view.find("allocation", node_id="no id"))


async def _check_records(store: Store) -> None:
    """Check that every kind of record comes back as it was."""
    every = records()
    await store.write(_put(*every))
    for record in every:
        kind, key = KIND_OF[type(record)].name, key_of(record)
        _expect(f"a {kind} comes back as it was put", record, await store.read(_getter(kind, key)))
    (found,) = await _watched(store, ZERO, 1)
    _expect("a watcher sees records as they were put", list(every), [r for c in found.changes for r in _records_of(c)])


def _getter(kind: str, key: str) -> Callable[[View], Record | None]:
    return lambda view: view.get(kind, key)


def _records_of(change: object) -> tuple[Record, ...]:
    return change.records if isinstance(change, Put) else ()


async def _check_revisions(store: Store) -> None:
    """Check that one write is one revision, and revisions are consecutive."""
    first = await store.write(lambda transaction: (transaction.put(setting("a")), "value")[1])
    _expect("a write returns what its transaction returned", "value", first.value)
    _expect("the first revision is 0.1", Revision(0, 1), first.revision)
    second = await store.write(lambda transaction: transaction.revision)
    _expect("a transaction that changes nothing has a revision, too", Revision(0, 2), second.revision)
    _expect("a transaction knows its revision", second.revision, second.value)
    _expect("a read is at the last revision", second.revision, await store.read(lambda view: view.revision))
    _expect("a commit tells what its transaction did", (Put("setting", (setting("a"),)),), first.changes)
    _expect("a commit of nothing tells so", (), second.changes)


async def _check_terms(store: Store) -> None:
    """Check that the setting `term` is the term of the revisions from its own write on."""
    await store.write(_put(setting("a")))
    raised = await store.write(_put(setting("term", 3)))
    _expect("the write that raises the term is of the new term", Revision(3, 2), raised.revision)
    _expect("so is the next one", Revision(3, 3), (await store.write(_put(setting("b")))).revision)
    await _expect_error("a term never falls", ValueError, store.write(_put(setting("term", 2))))
    _expect(
        "a watch goes on over a change of terms", [1, 2, 3], [c.revision.number for c in await _watched(store, ZERO, 3)]
    )
    gone = (Revision(0, 2), Revision(2, 2), Revision(3, 1), Revision(3, 4), Revision(4, 3))
    for after in gone:
        await _expect_error(f"there is no history after {after}", HistoryGone, _watched(store, after, 1))


# -------------------------------------------------------------------------------------------------------- transactions


async def _check_own_writes(store: Store) -> None:
    """Check that a transaction sees what it wrote."""

    def transaction(transaction: Transaction) -> list[int]:
        counts = []
        transaction.put(allocation(1), allocation(2))
        counts.append(len(transaction.find("allocation")))
        transaction.put_columns("allocation", _columns([3, 4]))
        counts.append(len(transaction.find("allocation", job="web")))
        transaction.delete("allocation", number(1), number(4))
        counts.append(len(transaction.find("allocation")))
        transaction.put(allocation(2, slot=9))
        counts.append(len(transaction.find("allocation", slot=9)))
        transaction.put(allocation(2, slot=8), allocation(2, slot=7))
        return counts

    commit = await store.write(transaction)
    _expect("a transaction sees what it wrote", [2, 4, 2, 1], commit.value)
    found = await store.read(lambda view: [(record.id, record.slot) for record in view.find("allocation")])  # type: ignore[union-attr]
    _expect("what was put last stays", [(number(2), 7), (number(3), 3)], found)


def _columns(sequences: list[int], **more: object) -> dict[str, object]:
    sample = allocation(0)
    names = ("namespace", "job", "version", "group", "node_id", "node", "evaluation", "created_at", "changed_at")
    same = {name: getattr(sample, name) for name in names}
    return {**same, "id": [number(sequence) for sequence in sequences], "slot": sequences, **more}


async def _check_columns(store: Store) -> None:
    """Check that records given by column are the records that they stand for."""
    commit = await store.write(
        lambda transaction: transaction.put_columns("allocation", _columns([5, 6], score=(0.5, 1)))
    )
    expected = (allocation(5, score=0.5), allocation(6, score=1.0))
    _expect("columns become records, with defaults for what is not given", expected, await store.read(_allocations))
    _expect("a commit has the records of columns", (Put("allocation", expected),), commit.changes)
    await store.write(lambda transaction: transaction.put_columns("setting", {"key": "one", "value": 1}))
    _expect("one row needs no sequence", setting("one", 1), await store.read(_getter("setting", "one")))
    empty = await store.write(lambda transaction: transaction.put_columns("allocation", _columns([])))
    _expect("no rows are no change", (), empty.changes)
    wrong: dict[str, dict[str, object]] = {
        "an unknown field": _columns([7], color="red"),
        "a missing field": {"id": [number(7)]},
        "columns of two lengths": _columns([7], score=[1.0, 2.0]),
        "a value of another type": _columns([7], version="one"),
        "an id that is none": _columns([7], node_id="moon"),
        "a number that is not finite": _columns([7], score=float("nan")),
        "a number beyond 64 bits": _columns([7], version=2**63),
    }
    for fault, columns in wrong.items():
        await _expect_error(f"{fault} is refused", (TypeError, ValueError), store.write(_put_columns(columns)))
    _expect("what was refused left nothing", expected, await store.read(_allocations))


def _put_columns(columns: dict[str, object]) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.put_columns("allocation", columns)


def _allocations(view: View) -> tuple[Record, ...]:
    return tuple(view.find("allocation"))


async def _check_undo(store: Store) -> None:
    """Check that an exception undoes its own transaction, and nothing else."""
    await store.write(_put(setting("a", 1), setting("b", 1)))

    def broken(transaction: Transaction) -> None:
        transaction.put(setting("a", 2), setting("c", 2))
        transaction.delete("setting", "b")
        transaction.put(setting("term", 5))
        raise _Broken

    async with anyio.create_task_group() as group:
        group.start_soon(store.write, _put(setting("d", 1)))
        group.start_soon(_expect_error, "a transaction's exception reaches its caller", _Broken, store.write(broken))
        group.start_soon(store.write, _put(setting("e", 1)))
    expected = {"setting": [setting(key, 1) for key in "abde"]}
    _expect("an exception undoes its transaction only", expected, await store.read(_all))
    _expect("it uses no revision", Revision(0, 3), await store.read(lambda view: view.revision))
    numbers = [found.revision for found in await _watched(store, ZERO, 3)]
    _expect("it is not in the feed", [Revision(0, 1), Revision(0, 2), Revision(0, 3)], numbers)


async def _check_deletes(store: Store) -> None:
    """Check that deletes tell what is gone."""
    await store.write(_put(setting("a"), setting("b"), allocation(1)))
    commit = await store.write(lambda transaction: transaction.delete("setting", "b", "x", "a", "b"))
    _expect("a key that is not there is passed over", (Delete("setting", ("b", "a")),), commit.changes)
    pruned = await store.write(lambda transaction: transaction.delete("allocation", number(1), "no id", pruned=True))
    _expect("a delete says that it prunes", (Delete("allocation", (number(1),), pruned=True),), pruned.changes)
    _expect("what was deleted is gone", {}, await store.read(_all))
    _expect(
        "watchers see deletes",
        [commit.changes, pruned.changes],
        [c.changes for c in await _watched(store, Revision(0, 1), 2)],
    )


async def _check_find(store: Store) -> None:
    """Check searches: by any field, in the order of keys, by pages."""
    puts = [allocation(n, slot=n % 3, previous=None if n % 2 else number(n - 1)) for n in (7, 3, 12, 5, 9, 4)]
    await store.write(_put(*puts, setting("ä", {"x": 1, "y": 2}), setting("z"), setting("Z", [1])))

    def ids(**conditions: Any) -> Callable[[View], list[str]]:
        return lambda view: [key_of(record) for record in view.find("allocation", **conditions)]

    def keys(*numbers: int) -> list[str]:
        return [number(n) for n in numbers]

    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, keys(3, 4, 5, 7, 9, 12)),
        ({"slot": 0}, keys(3, 9, 12)),
        ({"slot": 0, "previous": None}, keys(3, 9)),
        ({"previous": number(11)}, keys(12)),
        ({"status": "pending", "replaces": False, "created_at": allocation(1).created_at, "limit": 1}, keys(3)),
        ({"ports": ()}, keys(3, 4, 5, 7, 9, 12)),
        ({"ports": (), "limit": 2, "after_key": number(4)}, keys(5, 7)),
        ({"after_key": number(5)}, keys(7, 9, 12)),
        ({"after_key": number(6), "limit": 2}, keys(7, 9)),
        ({"after_key": number(3), "limit": 1, "slot": 0}, keys(9)),
        ({"limit": 0}, []),
    ]
    for conditions, expected in cases:
        _expect(f"find with {conditions}", expected, await store.read(ids(**conditions)))
    order = await store.read(lambda view: [key_of(record) for record in view.find("setting")])
    _expect("texts are ordered by their code points", ["Z", "z", "ä"], order)
    composite = await store.read(lambda view: view.find("setting", value={"y": 2, "x": 1}))
    _expect("values with parts are compared as values", [setting("ä", {"x": 1, "y": 2})], list(composite))
    await _expect_error("an unknown field is refused", TypeError, store.read(ids(color="red")))
    await _expect_error("an unknown kind is refused", TypeError, store.read(lambda view: view.find("color")))


async def _check_views_end(store: Store) -> None:
    """Check that views are of no use after their query, and that queries are plain functions."""
    views: list[View] = [
        await store.read(lambda view: view),
        (await store.write(lambda transaction: transaction)).value,
    ]
    for view in views:
        try:
            view.find("job")
        except RuntimeError:
            continue
        raise StoreCheckFailed("a view that is used after its query raises a RuntimeError: nothing was raised")
    await _expect_error("an async transaction is refused", TypeError, store.write(_async_transaction))
    _expect("it used no revision", Revision(0, 1), await store.read(lambda view: view.revision))


async def _async_transaction(transaction: Transaction) -> None:
    transaction.put(setting("never"))


# ---------------------------------------------------------------------------------------------- many at once, the feed


async def _check_concurrency(store: Store) -> None:
    """Check that writes that arrive at once are all done, each once, in the order of their arrival."""
    revisions: dict[int, Revision] = {}

    async def write(n: int) -> None:
        revisions[n] = (await store.write(_increment)).revision

    watched: list[ChangeList] = []

    async def watch() -> None:
        watched.extend(await _watched(store, ZERO, WRITERS * WRITES))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        for n in range(WRITERS):
            group.start_soon(_repeat, write, range(n * WRITES, (n + 1) * WRITES))
    count = await store.read(_getter("setting", "count"))
    _expect("every write is done once", setting("count", WRITERS * WRITES), count)
    numbers = list(range(1, WRITERS * WRITES + 1))
    _expect("each write has a revision of its own", numbers, sorted(r.number for r in revisions.values()))
    for n in range(WRITERS):
        own = [revisions[i] for i in range(n * WRITES, (n + 1) * WRITES)]
        _expect("writes are done in the order of their arrival", sorted(own), own)
    _expect("a watcher sees every revision, in order", numbers, [found.revision.number for found in watched])
    values = [record.value for found in watched for change in found.changes for record in _records_of(change)]  # type: ignore[union-attr]
    _expect("a watcher sees what each revision wrote", numbers, values)
    _expect("a late watcher sees the same", watched[3:], await _watched(store, Revision(0, 3), len(numbers) - 3))


def _increment(transaction: Transaction) -> None:
    found = transaction.get("setting", "count")
    transaction.put(setting("count", found.value + 1 if found is not None else 1))  # type: ignore[union-attr]


async def _repeat(function: Callable[[int], Awaitable[None]], numbers: range) -> None:
    for n in numbers:
        await function(n)


async def _check_durability_of_what_is_seen(store: Store) -> None:
    """Check that what a watcher is told of can be read."""

    async def write() -> None:
        for n in range(WRITES):
            await store.write(_put(setting("n", n)))

    async with anyio.create_task_group() as group, store.watch(ZERO) as lists:
        group.start_soon(write)
        async for found in lists:
            revision = await store.read(lambda view: view.revision)
            _expect("what a watcher was told of can be read", True, revision >= found.revision)
            if found.revision.number == WRITES:
                break
    revision = await store.read(lambda view: view.revision)
    async with store.watch(revision):  # a revision that was read can be watched from
        pass


async def _check_cancellation(store: Store) -> None:
    """Check that a caller that is cancelled neither loses nor halves its write."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.write(_put(setting("a"), allocation(1)))
    await store.write(_put(setting("b")))
    count = await store.read(lambda view: (len(view.find("setting")), len(view.find("allocation"))))
    _expect("a write is done as a whole, though its caller is cancelled", (2, 1), count)
    with anyio.CancelScope() as scope:
        async with store.watch(Revision(0, 1)) as lists:
            scope.cancel()
            async for _ in lists:
                raise StoreCheckFailed("a watcher that is cancelled ends: it went on")
    _expect("a cancelled watcher leaves the feed whole", 2, len(await _watched(store, ZERO, 2)))


_CHECKS: Final = (
    _check_empty,
    _check_records,
    _check_revisions,
    _check_terms,
    _check_own_writes,
    _check_columns,
    _check_undo,
    _check_deletes,
    _check_find,
    _check_views_end,
    _check_concurrency,
    _check_durability_of_what_is_seen,
    _check_cancellation,
)


# -------------------------------------------------------------------------------------------------- opening and closing


async def _check_closed(store: Store) -> None:
    """Check that a store is of use only while it is entered, and that leaving it does what was asked before."""
    await _expect_error("a store that is not entered refuses reads", StoreError, store.read(lambda view: view.revision))
    await _expect_error("a store that is not entered refuses writes", StoreError, store.write(_put(setting("a"))))
    seen = anyio.Event()

    async def watch() -> None:
        async with store.watch(ZERO) as lists:
            async for _ in lists:
                seen.set()

    async with anyio.create_task_group() as group, store:
        group.start_soon(_expect_error, "leaving a store ends its watchers", StoreError, watch())
        await store.write(_put(setting("a")))
        await seen.wait()
    await _expect_error("a store that was left refuses writes", StoreError, store.write(_put(setting("a"))))


async def _check_reopened(store: Store, reopen: Callable[[Store], Store]) -> None:
    """Check that everything outlives the store: records, revisions, terms and the feed."""
    every = records()
    async with store:
        await store.write(_put(*every, setting("term", 2)))
        await store.write(lambda transaction: transaction.delete("setting", "null", pruned=True))
        before, feed = await store.read(_all), await _watched(store, ZERO, 2)
    async with reopen(store) as again:
        _expect("records outlive the store", before, await again.read(_all))
        _expect("the revision outlives the store", Revision(2, 2), await again.read(lambda view: view.revision))
        _expect("the feed outlives the store", feed, await _watched(again, ZERO, 2))
        _expect("revisions go on", Revision(2, 3), (await again.write(_put(setting("next")))).revision)
        _expect(
            "a watch goes on",
            [Revision(2, 2), Revision(2, 3)],
            [c.revision for c in await _watched(again, Revision(2, 1), 2)],
        )
