"""What else a store is: usable on a virtual clock, wrapped, and checked by a suite that finds what is wrong."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio.testing
from attrs import evolve

from khonsu.abc.store import ChangeList, Commit
from khonsu.core.revision import ZERO, Revision
from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.wrapper import StoreWrapper
from khonsu.testing.store_samples import allocation, setting
from khonsu.testing.stores import StoreCheckFailed, check_store
from khonsu.testing.virtual import VirtualEnv
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

    from khonsu.abc.store import Transaction, View


def test_a_store_on_a_virtual_clock(tmp_path: Path) -> None:
    """On a clock that jumps, with threads that are waited for, the store in a file works as it does elsewhere."""

    async def main() -> list[Revision]:
        async with SQLiteStore(tmp_path / "state.db", env=VirtualEnv(), history_seconds_max=60) as store:
            found = []
            for number in range(5):
                await store.write(put_setting("a", number))
                await anyio.sleep(50)
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(store.write, put_setting(f"k{number}", number))
            base = store._feed._base
            found += [base, *(change.revision for change in await take(store, base, 25 - base.number))]
            return found

    clock = trio.testing.MockClock(autojump_threshold=0)
    found = anyio.run(main, backend="trio", backend_options={"clock": clock})
    assert found == [Revision(0, number) for number in range(found[0].number, 26)]
    assert 2 <= found[0].number <= 4


@pytest.mark.anyio
async def test_a_wrapper_sees_everything() -> None:
    """A wrapper that overrides `write` sees every write."""
    commits: list[Commit[Any]] = []

    class Audited(StoreWrapper):
        async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
            commits.append(await super().write(transaction))
            return commits[-1]

    async with Audited(MemoryStore()) as store:
        assert isinstance(store, Audited)
        commit = await store.write(put_setting("a"))
        assert commits == [commit]
        assert await store.read(lambda view: view.get("setting", "a")) == setting("a")


@pytest.mark.anyio
async def test_a_store_in_memory_keeps_what_it_had() -> None:
    """Left and entered again, a store in memory has its records, its revision and its feed."""
    store = MemoryStore()
    async with store:
        await store.write(put(setting("term", 4), allocation(1)))
    async with store:
        assert await store.read(lambda view: view.revision) == Revision(4, 1)
        assert len(await take(store, ZERO, 1)) == 1


# ------------------------------------------------------------------------------------------- what the suite has to find


class Unordered(StoreWrapper):
    """Finds records in the wrong order."""

    async def read(self, query: Callable[[View], Any], /) -> Any:
        value = await super().read(query)
        return value[::-1] if isinstance(value, (list, tuple)) else value


class Impatient(StoreWrapper):
    """Says that a write is done before it is."""

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.store.write, transaction)
        return Commit(None, ZERO)


class Cancellable(StoreWrapper):
    """Gives a write up with its caller."""

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        await anyio.lowlevel.checkpoint()
        return await super().write(transaction)


class Twice(StoreWrapper):
    """Runs transactions twice."""

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        await super().write(transaction)
        return await super().write(transaction)


class Retrying(StoreWrapper):
    """Runs each transaction again after it was undone, as a store may that others write to."""

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        def undone(inner: Transaction) -> None:
            transaction(inner)
            raise LookupError

        with suppress(LookupError):
            await super().write(undone)
        return await super().write(transaction)


class Rereading(StoreWrapper):
    """Runs each query twice."""

    async def read(self, query: Callable[[View], Any], /) -> Any:
        await super().read(query)
        return await super().read(query)


class Swallowing(StoreWrapper):
    """Hides what its block raised."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        await super().__aexit__(exc_type, exc, traceback)
        return True


class HalfUndone(StoreWrapper):
    """Keeps what a transaction did before it failed."""

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        errors: list[BaseException] = []

        def kept(inner: Transaction) -> Any:
            try:
                return transaction(inner)
            except BaseException as error:  # noqa: BLE001 - that is what is wrong with it
                errors.append(error)

        commit = await super().write(kept)
        if errors:
            raise errors[0]
        return commit


class Gappy(StoreWrapper):
    """Leaves out every seventh revision of the feed."""

    @asynccontextmanager
    async def watch(self, after: Revision, /) -> AsyncGenerator[AsyncIterator[ChangeList], None]:
        async def without(lists: AsyncIterator[ChangeList]) -> AsyncGenerator[ChangeList, None]:
            async for found in lists:
                if found.revision.number % 7:
                    yield found

        async with self.store.watch(after) as lists, aclosing(without(lists)) as gappy:
            yield gappy


class Forgiving(StoreWrapper):
    """Watches from any revision, though the history does not reach back to it."""

    @asynccontextmanager
    async def watch(self, after: Revision, /) -> AsyncGenerator[AsyncIterator[ChangeList], None]:
        last = await self.store.read(lambda view: view.revision)
        async with self.store.watch(after if after.term == last.term and after <= last else last) as lists:
            yield lists


class Lossy(StoreWrapper):
    """Forgets the message of records."""

    async def read(self, query: Callable[[View], Any], /) -> Any:
        value = await super().read(query)
        return evolve(value, message="") if hasattr(value, "message") else value


@pytest.mark.anyio
@pytest.mark.parametrize(
    "broken",
    [
        Unordered,
        Impatient,
        Cancellable,
        Twice,
        Retrying,
        Rereading,
        Swallowing,
        HalfUndone,
        Gappy,
        Forgiving,
        Lossy,
    ],
)
async def test_the_check_finds_a_broken_store(broken: type[StoreWrapper], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that breaks one promise does not pass."""
    monkeypatch.setattr("khonsu.testing.stores.TIME_SECONDS_MAX", 0.5)
    with pytest.raises(StoreCheckFailed):
        await check_store(lambda: broken(MemoryStore()))
