"""What every store must do: records and transactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from khonsu.abc.store import ChangeList, Delete, Put, Store, Transaction, View
from khonsu.core.records import KIND_OF, KINDS, Record, key_of
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone
from khonsu.scopes import bare_task_group
from khonsu.testing.store_samples import allocation, number, records, setting


class StoreCheckFailed(AssertionError):
    """A store does not keep a promise of the interface."""


class Broken(BaseException):
    """What a transaction raises in the check; no error that a store may take for one of its own."""


def expect(promise: str, expected: object, found: object) -> None:
    """Fail the check unless something is as it is promised."""
    if expected != found:
        raise StoreCheckFailed(f"{promise}: expected {expected!r:.500}, found {found!r:.500}")


async def expect_error(
    promise: str, kinds: type[BaseException] | tuple[type[BaseException], ...], call: Awaitable[Any]
) -> None:
    """Fail the check unless a call raises one of some errors."""
    try:
        await call
    except kinds:
        return
    raise StoreCheckFailed(f"{promise}: nothing was raised")


def put(*records: Record) -> Callable[[Transaction], None]:
    """Return a transaction that puts records."""
    return lambda transaction: transaction.put(*records)


def everything(view: View) -> dict[str, Sequence[Record]]:
    """Return everything, by kind."""
    return {kind: list(found) for kind in KINDS if (found := view.find(kind))}


async def watched(store: Store, after: Revision, count: int) -> list[ChangeList]:
    """Return the next change lists after a revision."""
    found: list[ChangeList] = []
    async with store.watch(after) as lists:
        async for changes in lists:
            found.append(changes)
            if len(found) == count:
                break
    return found


# ------------------------------------------------------------------------------------------------ records and revisions


async def check_empty(store: Store) -> None:
    """Check what a new store is like."""
    expect("a new store is at revision zero", ZERO, await store.read(lambda view: view.revision))
    expect("a new store holds nothing", {}, await store.read(everything))
    expect("a key that is not there gives None", None, await store.read(lambda view: view.get("job", "default/x")))
    expect("a text that is no key gives None", None, await store.read(lambda view: view.get("node", "no id")))
    expect("a value that nothing can have finds nothing", [], await store.read(_impossible))


def _impossible(view: View) -> list[Record]:
    return list(view.find("allocation", node_id="no id"))


async def check_records(store: Store) -> None:
    """Check that every kind of record comes back as it was."""
    every = records()
    await store.write(put(*every))
    for record in every:
        kind, key = KIND_OF[type(record)].name, key_of(record)
        expect(f"a {kind} comes back as it was put", record, await store.read(getter(kind, key)))
    (found,) = await watched(store, ZERO, 1)
    expect("a watcher sees records as they were put", list(every), [r for c in found.changes for r in records_of(c)])


def getter(kind: str, key: str) -> Callable[[View], Record | None]:
    """Return a query for one record."""
    return lambda view: view.get(kind, key)


def records_of(change: object) -> tuple[Record, ...]:
    """Return the records that a change put."""
    return change.records if isinstance(change, Put) else ()


async def check_revisions(store: Store) -> None:
    """Check that one write is one revision, and revisions are consecutive."""
    first = await store.write(lambda transaction: (transaction.put(setting("a")), "value")[1])
    expect("a write returns what its transaction returned", "value", first.value)
    expect("the first revision is 0.1", Revision(0, 1), first.revision)
    second = await store.write(lambda transaction: transaction.revision)
    expect("a transaction that changes nothing has a revision, too", Revision(0, 2), second.revision)
    expect("a transaction knows its revision", second.revision, second.value)
    expect("a read is at the last revision", second.revision, await store.read(lambda view: view.revision))
    expect("a commit tells what its transaction did", (Put("setting", (setting("a"),)),), first.changes)
    expect("a commit of nothing tells so", (), second.changes)


async def check_terms(store: Store) -> None:
    """Check that the setting `term` is the term of the revisions from its own write on."""
    await store.write(put(setting("a")))
    raised = await store.write(put(setting("term", 3)))
    expect("the write that raises the term is of the new term", Revision(3, 2), raised.revision)
    expect("so is the next one", Revision(3, 3), (await store.write(put(setting("b")))).revision)
    await expect_error("a term never falls", ValueError, store.write(put(setting("term", 2))))
    expect(
        "a watch goes on over a change of terms", [1, 2, 3], [c.revision.number for c in await watched(store, ZERO, 3)]
    )
    gone = (Revision(0, 2), Revision(2, 2), Revision(3, 1), Revision(3, 4), Revision(4, 3))
    for after in gone:
        await expect_error(f"there is no history after {after}", HistoryGone, watched(store, after, 1))


# -------------------------------------------------------------------------------------------------------- transactions


async def check_own_writes(store: Store) -> None:
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
    expect("a transaction sees what it wrote", [2, 4, 2, 1], commit.value)
    found = await store.read(lambda view: [(record.id, record.slot) for record in view.find("allocation")])  # type: ignore[union-attr]
    expect("what was put last stays", [(number(2), 7), (number(3), 3)], found)


def _columns(sequences: list[int], **more: object) -> dict[str, object]:
    sample = allocation(0)
    names = ("namespace", "job", "version", "group", "node_id", "node", "evaluation", "created_at", "changed_at")
    same = {name: getattr(sample, name) for name in names}
    return {**same, "id": [number(sequence) for sequence in sequences], "slot": sequences, **more}


async def check_columns(store: Store) -> None:
    """Check that records given by column are the records that they stand for."""
    commit = await store.write(
        lambda transaction: transaction.put_columns("allocation", _columns([5, 6], score=(0.5, 1)))
    )
    expected = (allocation(5, score=0.5), allocation(6, score=1.0))
    expect("columns become records, with defaults for what is not given", expected, await store.read(_allocations))
    expect("a commit has the records of columns", (Put("allocation", expected),), commit.changes)
    await store.write(lambda transaction: transaction.put_columns("setting", {"key": "one", "value": 1}))
    expect("one row needs no sequence", setting("one", 1), await store.read(getter("setting", "one")))
    empty = await store.write(lambda transaction: transaction.put_columns("allocation", _columns([])))
    expect("no rows are no change", (), empty.changes)
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
        await expect_error(f"{fault} is refused", (TypeError, ValueError), store.write(_put_columns(columns)))
    expect("what was refused left nothing", expected, await store.read(_allocations))


def _put_columns(columns: dict[str, object]) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.put_columns("allocation", columns)


def _allocations(view: View) -> tuple[Record, ...]:
    return tuple(view.find("allocation"))


async def check_undo(store: Store) -> None:
    """Check that an exception undoes its own transaction, and nothing else."""
    await store.write(put(setting("a", 1), setting("b", 1)))

    def broken(transaction: Transaction) -> None:
        transaction.put(setting("a", 2), setting("c", 2))
        transaction.delete("setting", "b")
        transaction.put(setting("term", 5))
        raise Broken

    async with bare_task_group() as group:
        group.start_soon(store.write, put(setting("d", 1)))
        group.start_soon(expect_error, "a transaction's exception reaches its caller", Broken, store.write(broken))
        group.start_soon(store.write, put(setting("e", 1)))
    expected = {"setting": [setting(key, 1) for key in "abde"]}
    expect("an exception undoes its transaction only", expected, await store.read(everything))
    expect("it uses no revision", Revision(0, 3), await store.read(lambda view: view.revision))
    numbers = [found.revision for found in await watched(store, ZERO, 3)]
    expect("it is not in the feed", [Revision(0, 1), Revision(0, 2), Revision(0, 3)], numbers)


async def check_runs_once(store: Store) -> None:
    """Check that a query and a transaction are run once: what they do beside the store cannot be undone."""
    runs: list[str] = []

    def query(_: View) -> None:
        runs.append("query")

    def transaction(transaction: Transaction) -> None:
        runs.append("transaction")
        transaction.put(setting("a"))

    def broken(_: Transaction) -> None:
        runs.append("broken")
        raise Broken

    await store.read(query)
    await store.write(transaction)
    await expect_error("a transaction's exception reaches its caller", Broken, store.write(broken))
    expect("queries and transactions are run once", ["query", "transaction", "broken"], runs)


async def check_deletes(store: Store) -> None:
    """Check that deletes tell what is gone."""
    await store.write(put(setting("a"), setting("b"), allocation(1)))
    commit = await store.write(lambda transaction: transaction.delete("setting", "b", "x", "a", "b"))
    expect("a key that is not there is passed over", (Delete("setting", ("b", "a")),), commit.changes)
    pruned = await store.write(lambda transaction: transaction.delete("allocation", number(1), "no id", pruned=True))
    expect("a delete says that it prunes", (Delete("allocation", (number(1),), pruned=True),), pruned.changes)
    expect("what was deleted is gone", {}, await store.read(everything))
    expect(
        "watchers see deletes",
        [commit.changes, pruned.changes],
        [c.changes for c in await watched(store, Revision(0, 1), 2)],
    )


async def check_find(store: Store) -> None:
    """Check searches: by any field, in the order of keys, by pages."""
    puts = [allocation(n, slot=n % 3, previous=None if n % 2 else number(n - 1)) for n in (7, 3, 12, 5, 9, 4)]
    await store.write(put(*puts, setting("ä", {"x": 1, "y": 2}), setting("z"), setting("Z", [1])))

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
        expect(f"find with {conditions}", expected, await store.read(ids(**conditions)))
    order = await store.read(lambda view: [key_of(record) for record in view.find("setting")])
    expect("texts are ordered by their code points", ["Z", "z", "ä"], order)
    composite = await store.read(lambda view: view.find("setting", value={"y": 2, "x": 1}))
    expect("values with parts are compared as values", [setting("ä", {"x": 1, "y": 2})], list(composite))
    await expect_error("an unknown field is refused", TypeError, store.read(ids(color="red")))
    await expect_error("an unknown kind is refused", TypeError, store.read(lambda view: view.find("color")))


async def check_views_end(store: Store) -> None:
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
    await expect_error("an async transaction is refused", TypeError, store.write(_async_transaction))
    expect("it used no revision", Revision(0, 1), await store.read(lambda view: view.revision))


async def _async_transaction(transaction: Transaction) -> None:
    transaction.put(setting("never"))
