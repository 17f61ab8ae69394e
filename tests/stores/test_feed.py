"""The feed: nothing is missed, nothing is kept for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.env import SystemEnv
from khonsu.errors import HistoryGone
from khonsu.stores import feed, history
from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from khonsu.testing.store_samples import allocation, setting
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from pathlib import Path

    from khonsu.abc.store import ChangeList, Store

pytestmark = pytest.mark.anyio


class SetClock(SystemEnv):
    """An environment whose wall clock is set by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1_000_000.0

    def now(self) -> float:
        """Return what was set."""
        return self.at


def numbers(lists: list[ChangeList]) -> list[int]:
    """Return the numbers of revisions."""
    return [found.revision.number for found in lists]


async def write(store: Store, count: int, size: int = 1) -> None:
    """Write some revisions."""
    for _ in range(count):
        await store.write(put_setting("a", "x" * size))


async def oldest(store: Store) -> int:
    """Return the number of the oldest revision that can be watched from."""
    last = (await store.read(lambda view: view.revision)).number
    for number in range(last + 1):
        try:
            async with store.watch(Revision(0, number)):
                return number
        except HistoryGone:
            continue
    raise AssertionError("the last revision can always be watched from")


@pytest.mark.parametrize("ends", [3, 50, 120])
async def test_a_slow_watcher_misses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int) -> None:
    """A watcher that falls behind what is kept in memory goes on from the table, and then live again."""
    monkeypatch.setattr(feed, "TAIL_LISTS_MAX", 10)
    monkeypatch.setattr(history, "_READ_ROWS_MAX", 7)
    async with SQLiteStore(tmp_path / "state.db") as store, store.watch(ZERO) as lists:
        await write(store, 2)
        found = [await anext(lists), await anext(lists)]
        await write(store, ends)
        assert len(store._feed._tail) == min(10, ends + 2)
        found += [await anext(lists) for _ in range(ends)]
        async with anyio.create_task_group() as group:
            group.start_soon(write, store, 3)
            found += [await anext(lists) for _ in range(3)]
        assert numbers(found) == list(range(1, ends + 6))


async def test_nothing_is_kept_while_nobody_watches(tmp_path: Path) -> None:
    """Without a watcher no change list stays in memory, and the records of a plan are never made."""
    async with SQLiteStore(tmp_path / "state.db") as store:
        async with store.watch(ZERO):
            await write(store, 3)
            assert len(store._feed._tail) == 3
        assert len(store._feed._tail) == 0
        await write(store, 3)
        assert len(store._feed._tail) == 0


async def test_what_is_kept_in_memory_is_bounded_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large change lists push the others out of memory sooner."""
    monkeypatch.setattr(feed, "TAIL_ROWS_MAX", 1000)
    async with SQLiteStore(tmp_path / "state.db") as store, store.watch(ZERO) as lists:
        store._feed._rows_max = 1000
        for _ in range(5):
            await store.write(put(*map(allocation, range(400))))
        assert len(store._feed._tail) == 2
        assert numbers([await anext(lists) for _ in range(5)]) == [1, 2, 3, 4, 5]


async def test_history_is_trimmed_by_age(tmp_path: Path) -> None:
    """What is older than the limit goes, a while later, and whoever needs it is told so."""
    env = SetClock()
    async with SQLiteStore(tmp_path / "state.db", env=env, history_seconds_max=100) as store:
        await write(store, 5)
        env.at += 99
        await write(store, 5)
        assert await oldest(store) == 0
        env.at += 20
        await write(store, 1)
        assert await oldest(store) == 5
        with pytest.raises(HistoryGone, match=r"the changes after revision 0\.4 are pruned; they begin after 0\.5"):
            await take(store, Revision(0, 4), 1)
        assert numbers(await take(store, Revision(0, 5), 6)) == [6, 7, 8, 9, 10, 11]
        env.at += 10_000
        await write(store, 1)
        assert await oldest(store) == 11
    async with SQLiteStore(tmp_path / "state.db", env=env) as store:
        assert await oldest(store) == 11
        assert numbers(await take(store, Revision(0, 11), 1)) == [12]


async def test_history_is_trimmed_by_size(tmp_path: Path) -> None:
    """What is beyond the size goes, the oldest first, and the count of its bytes stays true."""
    async with SQLiteStore(tmp_path / "state.db", history_bytes_max=100_000) as store:
        await write(store, 300, size=1000)
        first = await oldest(store)
        assert 200 < first < 225
        assert len(await take(store, Revision(0, first), 300 - first)) == 300 - first
        _, rows, history_ = store._engine._open_parts()
        counted = history_._bytes
        history_.doubt()
        assert (await store.read(lambda view: view.revision)).number == 300
        assert history_._bytes == counted
        assert rows is not None


async def test_much_history_goes_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history that became too old is trimmed by several writes, each a bounded part of it."""
    monkeypatch.setattr(history, "_TRIM_ROWS_MAX", 10)
    env = SetClock()
    async with SQLiteStore(tmp_path / "state.db", env=env, history_seconds_max=100) as store:
        await write(store, 35)
        env.at += 1000
        begins = []
        for _ in range(5):
            await write(store, 1)
            begins.append(await oldest(store))
        assert begins == [10, 20, 30, 35, 35]


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_watcher_that_falls_too_far_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A watcher whose next change was pruned is told so, rather than served a gap."""
    monkeypatch.setattr(feed, "TAIL_LISTS_MAX", 5)
    monkeypatch.setattr(feed, "PAGE_LISTS_MAX", 1)
    if kind == "memory":
        store: Store = MemoryStore(history_rows_max=20)
    else:
        store = SQLiteStore(tmp_path / "state.db", history_bytes_max=2000)
    async with store, store.watch(ZERO) as lists:
        await write(store, 1)
        assert (await anext(lists)).revision.number == 1
        await write(store, 100, size=100)
        with pytest.raises(HistoryGone, match="are pruned"):
            await anext(lists)


async def test_terms_that_were_pruned(tmp_path: Path) -> None:
    """Of a term whose revisions were pruned, only the base of the history can be watched from."""
    env = SetClock()
    async with SQLiteStore(tmp_path / "state.db", env=env, history_seconds_max=100) as store:
        await write(store, 3)
        env.at += 1000
        await store.write(put(setting("term", 7)))
        assert await store.read(lambda view: view.revision) == Revision(7, 4)
        assert numbers(await take(store, Revision(0, 3), 1)) == [4]
        env.at += 1000
        await write(store, 1)
        for after in (Revision(0, 3), Revision(0, 4), Revision(7, 3), Revision(7, 6)):
            with pytest.raises(HistoryGone):
                await take(store, after, 1)
        assert numbers(await take(store, Revision(7, 4), 1)) == [5]


async def test_many_watchers(tmp_path: Path) -> None:
    """Watchers that began at different revisions all see the rest, and share what they see."""
    async with SQLiteStore(tmp_path / "state.db") as store:
        await write(store, 10)
        found: dict[int, list[ChangeList]] = {}

        async def watch(after: int) -> None:
            found[after] = await take(store, Revision(0, after), 30 - after)

        async with anyio.create_task_group() as group:
            for after in range(11):
                group.start_soon(watch, after)
            await anyio.wait_all_tasks_blocked()
            await write(store, 20)
        for after in range(11):
            assert numbers(found[after]) == list(range(after + 1, 31))
        assert len({id(found[after][-1]) for after in found}) == 1
