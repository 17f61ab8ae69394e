"""On a clock that jumps: what is old is forgotten in the time that it takes to say so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from trio.testing import MockClock

from khonsu.control import eventlog
from khonsu.control.pruner import Pruner
from khonsu.core.records import Allocation, Record
from khonsu.core.retention import Retention
from khonsu.core.states import AllocationStatus
from khonsu.errors import HistoryGone, NotFound, StoreFull
from khonsu.stores.memory import MemoryStore
from khonsu.stores.wrapper import StoreWrapper
from khonsu.testing import VirtualEnv
from tests.control.cluster import Cluster, batch, cluster, service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from khonsu.abc.store import Commit, Transaction
    from khonsu.client.stream import Stream
    from khonsu.core.records import Event

pytestmark = pytest.mark.anyio

A = AllocationStatus


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run on a clock that jumps to the next thing that happens."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


async def stored(home: Cluster, kind: str) -> Sequence[Record]:
    """Return all records of a kind."""
    return await home.plane.parts.state.read(lambda view: view.find(kind))


async def test_what_is_old_is_forgotten_and_what_lives_is_not() -> None:
    """A minute later the ended job is gone whole, and the running one has all that it needs."""
    policy = Retention(allocations="0s", jobs="5m", evaluations="0s", events_max=3, answers="0s", versions_max=1)
    async with cluster(env=VirtualEnv(), retention=policy) as home:
        await home.running("a")
        await home.client.run(batch())
        for command in ("one", "two", "three"):
            await home.client.wait(await home.client.submit(service(command=command)))
        await home.plane.invite(valid="2m")
        await anyio.sleep(150.0)
        [copy] = home.copies("web", A.RUNNING)
        assert [one.id for one in home.copies("web", A.STOPPED)] == [copy.previous]
        assert [one.version for one in await home.client.history("web")] == [3, 2]
        assert len(await stored(home, "event")) <= 3
        assert await stored(home, "evaluation") == []
        assert await stored(home, "idempotency_key") == []
        assert (await home.client.job("work")).status == "complete"
        await anyio.sleep(300.0)
        with pytest.raises(NotFound):
            await home.client.job("work")
        assert not await stored(home, "join_token")
        assert (await home.client.wait("web")).status == "healthy"


class Full(StoreWrapper):
    """A store whose disk is full for a while."""

    full = False

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        """Refuse while it is full."""
        if self.full:
            await anyio.lowlevel.checkpoint()
            raise StoreFull("there is no room")
        return await super().write(transaction)


@pytest.mark.costly
async def test_a_full_disk_ends_nothing() -> None:
    """Minutes without room: all loops go on, agents are heard, and then work goes on by itself."""
    store = Full(MemoryStore())
    policy = Retention(events_max=1)
    async with cluster(store, env=VirtualEnv(), retention=policy) as home:
        nodes = await home.running("a", "b", "c")
        await home.client.wait(await home.client.submit(service(count=3, max_per_node=1)))
        store.full = True
        nodes[0].kill()
        await anyio.sleep(300.0)
        # Not from memory, where something may just have been decided that will be undone.
        there = await stored(home, "allocation")
        assert [one.status for one in there if isinstance(one, Allocation)] == [A.RUNNING] * 3
        store.full = False
        await home.until(lambda: home.copies("web", A.UNKNOWN))
        await home.client.submit(service("more"))
        assert (await home.client.wait("more")).status == "healthy"


async def test_who_resumes_before_what_is_forgotten_is_told() -> None:
    """Events are not left out in silence: whoever saw the last that is remembered goes on, and nobody earlier."""
    async with cluster(env=VirtualEnv(), retention=Retention(events_max=3)) as home:
        await home.running("a")
        async with home.client.events(follow=False) as events:
            first = await anext(events)
        for command in ("one", "two", "three"):
            await home.client.wait(await home.client.submit(service(command=command)))
        await anyio.sleep(150.0)
        with pytest.raises(HistoryGone, match="are forgotten"):
            async with home.client.events(after=first.revision, follow=False):
                pass
        with pytest.raises(HistoryGone, match=f"event {first.id} is forgotten"):
            async with home.client.events(after=first, follow=False):
                pass
        async with home.client.events(follow=False) as events:
            left = [event async for event in events]
        async with home.client.events(after=left[0].revision, follow=False) as events:
            assert [event async for event in events] == [one for one in left if one.revision > left[0].revision]


async def rest(events: Stream[Event]) -> list[Event]:
    """Return all that comes."""
    return [event async for event in events]


async def test_who_reads_too_slowly_is_told() -> None:
    """What is forgotten before a reader has come to it is not left out in silence."""
    async with cluster(env=VirtualEnv(), retention=Retention(events_max=3)) as home:
        await home.running("a")
        for number in range(10):
            await home.client.wait(await home.client.submit(service(f"job{number}", cpu=1)))
        async with home.client.events() as events:
            await anext(events)
            await home.client.wait(await home.client.submit(service("late", cpu=1)))
            await anyio.sleep(150.0)
            with pytest.raises(HistoryGone, match="are forgotten"):
                await rest(events)


@pytest.mark.parametrize("kept", [1, 5])
async def test_what_is_forgotten_while_it_is_read_is_not_left_out(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether later revisions are forgotten, or only the rest of that which the reader has come to."""
    async with cluster(env=VirtualEnv(), retention=Retention(events_max=kept)) as home:
        state = home.plane.parts.state
        for _ in range(2):
            batch = state.batch()
            for number in range(5):
                batch.event("made", str(number))
            await state.commit(batch)
        page, reads = state.page, list[str | None]()

        async def slow(kind: str, after: str | None, limit: int, **equals: object) -> Sequence[Record]:
            if limit == eventlog.ROWS_PER_READ:
                reads.append(after)
            if len(reads) == 2:
                reads.append("the pruner reads, too")
                await Pruner(state, Retention(events_max=kept)).prune()
            return await page(kind, after, limit, **equals)

        monkeypatch.setattr(eventlog, "ROWS_PER_READ", 2)
        monkeypatch.setattr(state, "page", slow)
        with pytest.raises(HistoryGone, match="are forgotten"):
            async with home.client.events(follow=False) as events:
                await rest(events)


async def test_fencing_tokens_grow_also_when_a_job_was_forgotten() -> None:
    """A job of the same name begins after the last token of the one that was purged, or pruned."""
    async with cluster(env=VirtualEnv(), retention=Retention(jobs="1m")) as home:
        await home.running("a")
        generations = []
        for purged in (True, False, True):
            await home.client.wait(await home.client.submit(service()))
            generations += [one.generation for one in home.copies("web", A.RUNNING)]
            await home.client.stop("web", purge=purged)
            await home.until(lambda: not home.copies())
            await anyio.sleep(150.0)
            assert "default/web" not in home.tables.jobs
        assert generations == sorted(set(generations))
