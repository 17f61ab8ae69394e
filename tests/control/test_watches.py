from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest

from khonsu.abc.transport import Request
from khonsu.control import eventlog, queries
from khonsu.core.revision import Revision
from khonsu.errors import HistoryGone, InvalidRequest
from khonsu.stores.memory import MemoryStore
from tests.control.cluster import Cluster, cluster, service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from khonsu.abc.store import Commit, Transaction
    from khonsu.core.records import Allocation, Record

T = TypeVar("T")

pytestmark = pytest.mark.anyio


async def get(home: Cluster, operation: str, **body: Any) -> Any:
    """Make a read of an operator."""
    return (await (await home.operator()).call(Request(operation=operation, body=body))).body


async def test_a_watch_is_answered_when_something_changes(home: Cluster) -> None:
    """It is held while nothing does, and what it is answered with is newer."""
    await home.client.submit(service())
    await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))
    seen = (await get(home, "job.get", name="web"))["revision"]
    answers: list[Any] = []

    async def watch() -> None:
        answers.append(await get(home, "job.get", name="web", after=seen, wait=30.0))

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await home.client.submit(service("other"))
        assert answers == []
        await home.client.submit(service(count=2))
    assert answers[0]["version"] == 2
    assert Revision.parse(answers[0]["revision"]) > Revision.parse(seen)


async def test_a_watch_that_comes_late_is_answered_at_once(home: Cluster) -> None:
    """What changed before the watch began is not missed."""
    await home.client.submit(service())
    seen = (await get(home, "job.list"))["revision"]
    await home.client.submit(service("late"))
    with anyio.fail_after(5.0):
        answer = await get(home, "job.list", after=seen, wait=30.0)
    assert [one["name"] for one in answer["items"]] == ["late", "web"]


async def test_a_watch_ends_after_its_time(home: Cluster) -> None:
    """Nothing changed: it is answered all the same, as things are."""
    await home.client.submit(service())
    await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))
    seen = (await get(home, "node.list"))["revision"]
    answer = await get(home, "node.list", after=seen, wait=0.01)
    assert answer["items"] == []


async def test_a_revision_of_the_future_is_gone(home: Cluster) -> None:
    """Who has seen what this history does not have must read anew."""
    future = str(Revision(home.plane.parts.state.term, 10**6))
    for operation, body in (("job.list", {}), ("node.list", {}), ("job.get", {"name": "web"})):
        await home.client.submit(service())
        with pytest.raises(HistoryGone):
            await get(home, operation, after=future, wait=1.0, **body)
    with pytest.raises(HistoryGone):  # noqa: PT012 - where it is raised depends on the transport
        async with home.client.events(after=Revision(9, 1)) as events:
            async for _ in events:
                pass


@pytest.mark.parametrize("wrong", [{"after": "x"}, {"after": "1"}, {"limit": 0}, {"limit": "x"}, {"wait": -1}])
async def test_a_wrong_watch_is_refused(home: Cluster, wrong: dict[str, Any]) -> None:
    """What is no revision, no number or no time is told."""
    seen = (await get(home, "job.list"))["revision"]
    with pytest.raises(InvalidRequest):
        await get(home, "job.list", **{"after": seen, **wrong})


async def test_a_watch_of_a_job_tells_what_happened_while_it_waited(home: Cluster) -> None:
    """The events of the answer are those of its revision."""
    await home.client.submit(service())
    before = await get(home, "job.get", name="web")
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            after = await get(home, "job.get", name="web", after=before["revision"], wait=30.0)
            while after["status"] != "stopped":
                after = await get(home, "job.get", name="web", after=after["revision"], wait=30.0)
            assert "job-stopped" in [event["type"] for event in after["events"]]

        group.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        await home.client.stop("web")


class _HeldStore(MemoryStore):
    """A store whose disk can be told to take its time."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = anyio.Event()
        self.ready.set()

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        await self.ready.wait()
        return await super().write(transaction)


async def test_a_read_has_all_events_up_to_its_revision() -> None:
    """Also while some are on their way to the disk: a watch from there on tells of the others."""
    store = _HeldStore()
    async with cluster(store) as home:
        await home.client.submit(service())
        store.ready = anyio.Event()
        answers: list[Any] = []

        async def read() -> None:
            answers.append(await get(home, "job.get", name="web"))

        async with anyio.create_task_group() as group:
            group.start_soon(home.client.stop, "web")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            store.ready.set()
        seen = Revision.parse(answers[0]["revision"])
        async with home.client.events(job="web", follow=False) as events:
            known = [event.id async for event in events if event.revision <= seen]
        assert known == [event["id"] for event in answers[0]["events"]]


async def test_lists_come_in_pages(home: Cluster) -> None:
    """Every item comes once, in the order of the keys."""
    for number in range(5):
        await home.client.submit(service(f"job{number}"))
    found: list[str] = []
    cursor: str | None = None
    sizes = []
    while True:
        page = await get(home, "job.list", limit=2, cursor=cursor)
        found += [one["name"] for one in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["next"]
        if cursor is None:
            break
    assert sizes == [2, 2, 1]
    assert found == [f"job{number}" for number in range(5)]


async def test_allocations_come_in_pages_and_no_others_are_made(home: Cluster) -> None:
    """Those of a namespace come job after job; of a million copies only those of a page become objects."""
    await home.node("a")
    names = ("a", "a-b", "a.b", "a1", "b")
    for name in names:
        await home.client.submit(service(name, cpu=1, count=3))
    await home.until(lambda: len(home.tables.allocations) == 15)
    await anyio.wait_all_tasks_blocked()
    found: list[tuple[str, int]] = []
    cursor: str | None = None
    while not found or cursor is not None:
        page = await get(home, "allocation.list", limit=4, cursor=cursor)
        found += [(one["job"], one["slot"]) for one in page["items"]]
        cursor = page["next"]
    assert found == [(name, slot) for name in ("a-b", "a.b", "a", "a1", "b") for slot in range(3)]
    made: list[str] = []
    of_job = home.tables.allocations.of_job

    def noted(job: str) -> tuple[Allocation, ...]:
        made.append(job)
        return of_job(job)

    home.tables.allocations.of_job = noted  # type: ignore[method-assign]
    await get(home, "allocation.list", limit=4, cursor="a.b/x")
    assert made == ["default/a.b", "default/a", "default/a1"]


async def test_events_are_told_as_they_happen(home: Cluster) -> None:
    """A follower gets what was, and then what comes, in order and once."""
    await home.client.submit(service())
    found: list[str] = []
    async with home.client.events(job="web") as events:
        async for event in events:
            found.append(event.type)
            if event.type == "job-created":
                await home.running("a")
            if event.type == "job-running":
                break
    assert found[0] == "job-created"
    assert found.count("job-planned") == found.count("allocation-running") == 1
    assert found.index("job-planned") < found.index("allocation-running")


def noted_pages(home: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return where the pages begin that the state is asked for from now on."""
    read = list[str | None]()
    page = home.plane.parts.state.page

    async def noted(kind: str, after: str | None, limit: int, **equals: object) -> Sequence[Record]:
        read.append(after)
        return await page(kind, after, limit, **equals)

    monkeypatch.setattr(home.plane.parts.state, "page", noted)
    return read


@pytest.mark.parametrize("back", [(), (1,), (1, 10), (1_000,)])
async def test_the_latest_events_of_a_job_are_found_from_behind(
    home: Cluster, monkeypatch: pytest.MonkeyPatch, back: tuple[int, ...]
) -> None:
    """The history of a job may be long: only as much of it is read as is shown."""
    monkeypatch.setattr(queries, "KEYS_BACK", back)
    monkeypatch.setattr(queries, "EVENTS_SHOWN", 3)
    await home.running("a")
    for name in ("other", "web"):
        await home.client.wait(await home.client.submit(service(name, cpu=1)))
    async with home.client.events(job="web", follow=False) as events:
        known = [event async for event in events]
    read = noted_pages(home, monkeypatch)
    assert list((await home.client.job("web")).events) == known[-3:]
    assert len(known) > 3
    assert (None in read) is (back != (1, 10))


async def test_events_resume_after_a_revision(home: Cluster) -> None:
    """A reader who comes back gets only what it has not seen."""
    first = await home.client.submit(service("one"))
    await home.client.submit(service("two"))
    async with home.client.events(after=first.revision, types=["job-created"], follow=False) as events:
        assert [event.job async for event in events] == ["two"]


async def test_events_resume_after_an_event_also_within_a_revision(home: Cluster) -> None:
    """A stream that was cut between two events of one change goes on with the second."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service(count=2)))
    async with home.client.events(follow=False) as events:
        known = [event async for event in events]
    assert len({event.revision for event in known}) < len(known)
    for place, last in enumerate(known):
        async with home.client.events(after=last, follow=False) as events:
            assert known[place + 1 :] == [event async for event in events]
    async with home.client.events(after=known[-2].id, follow=False) as events:
        assert known[-1:] == [event async for event in events]
    for wrong in ("nonsense", "0" * 9):
        with pytest.raises(HistoryGone, match="is forgotten, or never was"):
            async with home.client.events(after=wrong):
                pass


async def test_events_resume_from_any_revision_without_reading_all(
    home: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the place is found, all that came after it is told, and nothing before."""
    await home.running("a")
    for number in range(5):
        await home.client.wait(await home.client.submit(service(f"job{number}", cpu=1)))
    async with home.client.events(follow=False) as events:
        known = [event async for event in events]
    monkeypatch.setattr(eventlog, "ROWS_PER_READ", 2)
    for revision in dict.fromkeys(event.revision for event in known):
        async with home.client.events(after=revision, follow=False) as events:
            assert [event async for event in events] == [one for one in known if one.revision > revision]
    read = noted_pages(home, monkeypatch)
    async with home.client.events(after=known[-1].revision, follow=False) as events:
        assert [event async for event in events] == []
    assert len(read) < 20 < len(known)
    assert None not in read


async def test_events_can_be_chosen(home: Cluster) -> None:
    """By job, by node and by type; those of other namespaces are not shown."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service("one")))
    await home.client.wait(await home.client.submit(service("two")))
    async with home.plane.client(namespace="other") as other:
        await other.submit(service("three", namespace="other"))
        async with other.events(types=["job-created"], follow=False) as events:
            assert [event.job async for event in events] == ["three"]
    assert [type_ for type_, _ in await home.events("job-created")] == ["job-created"] * 2
    async with home.client.events(job="one", follow=False) as events:
        assert {event.job async for event in events} == {"one"}
    async with home.client.events(node="a", follow=False) as events:
        assert {event.node async for event in events} == {"a"}


async def test_every_event_of_a_change_has_its_revision(home: Cluster) -> None:
    """Events are told with the change that they tell of, never before it."""
    submission = await home.client.submit(service())
    async with home.client.events(types=["job-created"], follow=False) as events:
        assert [event.revision async for event in events] == [submission.revision]


async def test_the_status_counts(home: Cluster) -> None:
    """The control plane in a few numbers, and as metrics."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service(count=2)))
    status = await home.client.status()
    assert (status.nodes_ready, status.nodes_down, status.jobs, status.allocations_live) == (1, 0, 1, 2)
    text = home.plane.parts.handler.metrics()
    assert 'khonsu_nodes{status="ready"} 1' in text
    assert 'khonsu_allocations{status="running"} 2' in text
    assert text.endswith("# EOF\n")
