"""What every store must do: many writers at once, the feed, opening and closing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from khonsu.abc.store import ChangeList, Store, Transaction
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import StoreError
from khonsu.scopes import bare_task_group
from khonsu.testing.store_checks import (
    Broken,
    StoreCheckFailed,
    everything,
    expect,
    expect_error,
    getter,
    put,
    records_of,
    watched,
)
from khonsu.testing.store_samples import allocation, records, setting

WRITERS: Final = 8
WRITES: Final = 10


# ---------------------------------------------------------------------------------------------- many at once, the feed


async def check_concurrency(store: Store) -> None:
    """Check that writes that arrive at once are all done, each once, in the order of their arrival."""
    revisions: dict[int, Revision] = {}

    async def write(n: int) -> None:
        revisions[n] = (await store.write(_increment)).revision

    seen: list[ChangeList] = []

    async def watch() -> None:
        seen.extend(await watched(store, ZERO, WRITERS * WRITES))

    async with bare_task_group() as group:
        group.start_soon(watch)
        for n in range(WRITERS):
            group.start_soon(_repeat, write, range(n * WRITES, (n + 1) * WRITES))
    count = await store.read(getter("setting", "count"))
    expect("every write is done once", setting("count", WRITERS * WRITES), count)
    numbers = list(range(1, WRITERS * WRITES + 1))
    expect("each write has a revision of its own", numbers, sorted(r.number for r in revisions.values()))
    for n in range(WRITERS):
        own = [revisions[i] for i in range(n * WRITES, (n + 1) * WRITES)]
        expect("writes are done in the order of their arrival", sorted(own), own)
    expect("a watcher sees every revision, in order", numbers, [found.revision.number for found in seen])
    values = [record.value for found in seen for change in found.changes for record in records_of(change)]  # type: ignore[union-attr]
    expect("a watcher sees what each revision wrote", numbers, values)
    expect("a late watcher sees the same", seen[3:], await watched(store, Revision(0, 3), len(numbers) - 3))


def _increment(transaction: Transaction) -> None:
    found = transaction.get("setting", "count")
    transaction.put(setting("count", found.value + 1 if found is not None else 1))  # type: ignore[union-attr]


async def _repeat(function: Callable[[int], Awaitable[None]], numbers: range) -> None:
    for n in numbers:
        await function(n)


async def check_durability_of_what_is_seen(store: Store) -> None:
    """Check that what a watcher is told of can be read."""

    async def write() -> None:
        for n in range(WRITES):
            await store.write(put(setting("n", n)))

    async with bare_task_group() as group, store.watch(ZERO) as lists:
        group.start_soon(write)
        async for found in lists:
            revision = await store.read(lambda view: view.revision)
            expect("what a watcher was told of can be read", True, revision >= found.revision)
            if found.revision.number == WRITES:
                break
    revision = await store.read(lambda view: view.revision)
    async with store.watch(revision):  # a revision that was read can be watched from
        pass


async def check_cancellation(store: Store) -> None:
    """Check that a caller that is cancelled neither loses nor halves its write."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.write(put(setting("a"), allocation(1)))
    await store.write(put(setting("b")))
    count = await store.read(lambda view: (len(view.find("setting")), len(view.find("allocation"))))
    expect("a write is done as a whole, though its caller is cancelled", (2, 1), count)
    with anyio.CancelScope() as scope:
        async with store.watch(Revision(0, 1)) as lists:
            scope.cancel()
            async for _ in lists:
                raise StoreCheckFailed("a watcher that is cancelled ends: it went on")
    expect("a cancelled watcher leaves the feed whole", 2, len(await watched(store, ZERO, 2)))


# -------------------------------------------------------------------------------------------------- opening and closing


async def check_closed(store: Store) -> None:
    """Check that a store is of use only while it is entered, and that leaving it does what was asked before."""
    await expect_error("a store that is not entered refuses reads", StoreError, store.read(lambda view: view.revision))
    await expect_error("a store that is not entered refuses writes", StoreError, store.write(put(setting("a"))))
    seen = anyio.Event()

    async def watch() -> None:
        async with store.watch(ZERO) as lists:
            async for _ in lists:
                seen.set()

    async with bare_task_group() as group, store:
        group.start_soon(expect_error, "leaving a store ends its watchers", StoreError, watch())
        await store.write(put(setting("a")))
        await seen.wait()
    await expect_error("a store that was left refuses writes", StoreError, store.write(put(setting("a"))))


async def check_errors_pass(store: Store) -> None:
    """Check that leaving a store hides no exception of its block, nor puts another in its place."""

    async def block() -> None:
        async with store:
            raise Broken

    await expect_error("an exception in the block of a store leaves it", Broken, block())


async def check_reopened(store: Store, reopen: Callable[[Store], Store]) -> None:
    """Check that everything outlives the store: records, revisions, terms and the feed."""
    every = records()
    async with store:
        await store.write(put(*every, setting("term", 2)))
        await store.write(lambda transaction: transaction.delete("setting", "null", pruned=True))
        before, feed = await store.read(everything), await watched(store, ZERO, 2)
    async with reopen(store) as again:
        expect("records outlive the store", before, await again.read(everything))
        expect("the revision outlives the store", Revision(2, 2), await again.read(lambda view: view.revision))
        expect("the feed outlives the store", feed, await watched(again, ZERO, 2))
        expect("revisions go on", Revision(2, 3), (await again.write(put(setting("next")))).revision)
        expect(
            "a watch goes on",
            [Revision(2, 2), Revision(2, 3)],
            [c.revision for c in await watched(again, Revision(2, 1), 2)],
        )
