from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.abc.transport import Request
from khonsu.control.plane import ControlPlane
from khonsu.core.codec import to_json
from khonsu.core.operations import Role
from khonsu.core.records import JobRecord
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.errors import KhonsuError, StoreError, StoreFull, Unauthenticated
from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.wrapper import StoreWrapper
from tests.control.cluster import Cluster, Node, batch, cluster, service

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from khonsu.abc.store import Commit, Transaction
    from khonsu.control.state import Moves

pytestmark = pytest.mark.anyio

A = AllocationStatus


class Failing(StoreWrapper):
    """A store whose disk is full for as many writes as `fails` says."""

    fails = 0
    error: Exception = StoreFull("there is no room")

    async def write(self, transaction: Callable[[Transaction], Any], /) -> Commit[Any]:
        """Fail, or write."""
        if self.fails:
            self.fails -= 1
            await anyio.lowlevel.checkpoint()
            raise self.error
        return await super().write(transaction)


def picture(home: Cluster) -> dict[str, Any]:
    """Return what the tables hold of users' things."""
    tables = home.tables
    return {
        "jobs": dict(tables.jobs),
        "versions": {key: dict(versions) for key, versions in tables.versions.items()},
        "allocations": dict(tables.allocations),
        "nodes": dict(tables.nodes),
        "credentials": dict(tables.credentials),
        "invitations": dict(tables.join_tokens),
        "evaluations": dict(tables.evaluations),
    }


def usable(home: Cluster) -> bool:
    """Return whether writes are taken, and not refused because the tables are being rebuilt."""
    try:
        home.plane.parts.state.batch()
    except StoreError:
        return False
    return True


async def test_a_restart_loses_nothing_and_expires_nobody(tmp_path: Path) -> None:
    """All is there again, every node has a full lease, and the same copies run on."""
    path = tmp_path / "state.db"
    async with cluster(SQLiteStore(path)) as home:
        answer = await home.joined("a")
        node = Node(await home.connect(answer.credential), "a", answer.node)
        token = await home.plane.invite(name="b")
        submission = await home.client.submit(service(count=2))
        await home.until_copies("web", 2, A.PENDING)
        await node.work()
        await home.client.wait(submission)
        await home.client.submit(service("waits", cpu=4000))
        await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))
        before, events = picture(home), await home.events()
        term = home.plane.parts.state.term
        started = set(node.wanted)
    async with cluster(SQLiteStore(path)) as home:
        assert picture(home) == before
        assert await home.events() == events
        assert home.plane.parts.state.term == term
        assert answer.node in home.plane.parts.leases.book
        node.connection = await home.connect(answer.credential)
        reply = await node.sync()
        assert not reply.complete
        assert not reply.assignments
        node.seen = None
        reply = await node.sync()
        assert {one.id for one in reply.assignments} == started
        assert home.tables.nodes[answer.node].status is NodeStatus.READY
        assert {one.id for one in home.copies()} == started
        await home.joined("b", token)
        assert (await home.client.submit(service(count=2))).outcome == "unchanged"
        await home.until(lambda: home.copies("waits"))
        assert home.copies("waits")[0].id not in before["allocations"]


async def test_a_repeat_after_a_restart_is_answered_as_before(tmp_path: Path) -> None:
    """The answer to a request with a key outlives the process; keys belong to a credential."""
    path, folder = tmp_path / "state.db", tmp_path / "data"
    request = Request(operation="job.submit", body={"job": to_json(service())}, idempotency_key="once")
    async with cluster(SQLiteStore(path), data_dir=folder) as home:
        token = (folder / "operator.token").read_text().strip()
        first = await (await home.connect(token)).call(request)
    async with cluster(SQLiteStore(path), data_dir=folder) as home:
        assert (folder / "operator.token").read_text().strip() == token
        assert (await (await home.connect(token)).call(request)).body == first.body


@pytest.mark.parametrize("lost", ["deleted", "damaged"])
async def test_a_token_of_an_operator_that_is_replaced_is_void(tmp_path: Path, lost: str) -> None:
    """Whoever deletes the file gets a new token at the next start, and the one that was in it opens nothing."""
    path, folder = tmp_path / "state.db", tmp_path / "data"
    file = folder / "operator.token"
    async with cluster(SQLiteStore(path), data_dir=folder):
        before = file.read_text().strip()
    file.unlink() if lost == "deleted" else file.write_text("nothing")
    async with cluster(SQLiteStore(path), data_dir=folder) as home:
        now = file.read_text().strip()
        assert (await (await home.connect(now)).call(Request(operation="system.status"))).body["jobs"] == 0
        with pytest.raises(Unauthenticated):
            await (await home.connect(before)).call(Request(operation="system.status"))


async def test_a_local_credential_ends_with_the_process(tmp_path: Path) -> None:
    """What was made for this process only opens nothing in the next."""
    path = tmp_path / "state.db"
    async with cluster(SQLiteStore(path)) as home:
        credential = home.plane.parts.gate.local(Role.OPERATOR)
    async with cluster(SQLiteStore(path)) as home:
        connection = await home.connect(credential)
        with pytest.raises(Unauthenticated):
            await connection.call(Request(operation="system.status"))


async def test_work_that_was_pending_is_done_after_a_restart(tmp_path: Path) -> None:
    """An evaluation that nobody came to is taken up by the next process."""
    path = tmp_path / "state.db"
    async with cluster(SQLiteStore(path)) as home:
        identity = await home.joined("a")
        await home.client.submit(batch(count=3))
    async with cluster(SQLiteStore(path)) as home:
        node = Node(await home.connect(identity.credential), "a", identity.node)
        await home.until(lambda: len(home.tables.allocations) == 3)
        await node.work()
        assert (await home.client.wait("work")).status == "complete"


async def test_a_full_disk_refuses_writes_and_undoes_them() -> None:
    """A submit that is not on the disk is refused, has not happened, and can be made again."""
    store = Failing(MemoryStore())
    async with cluster(store) as home:
        await home.running("a")
        before = picture(home)
        store.fails = 1
        with pytest.raises(StoreFull):
            await home.client.submit(service())
        await home.until(lambda: usable(home))
        assert picture(home) == before
        assert await home.client.jobs() == ()
        submission = await home.client.submit(service())
        assert (submission.outcome, submission.version) == ("created", 1)
        assert (await home.client.wait(submission)).status == "healthy"


async def test_whatever_a_store_raises_is_told_to_those_who_wait_and_undone() -> None:
    """A store of somebody else may fail in its own way: that ends no loop, and keeps nobody waiting."""
    store = Failing(MemoryStore())
    store.error = OSError("the cable was pulled")
    async with cluster(store) as home:
        store.fails = 1
        with anyio.fail_after(10), pytest.raises(StoreError, match="OSError: the cable was pulled"):
            await home.client.submit(service())
        await home.until(lambda: usable(home))
        assert await home.client.jobs() == ()
        assert (await home.client.submit(service())).outcome == "created"


async def test_a_decision_that_fails_half_way_is_undone() -> None:
    """What is in memory is what is on the disk, whatever mistake of ours comes in between."""
    store = MemoryStore()
    async with cluster(store) as home:
        await home.running("a")
        before = picture(home)

        def fail(moves: Moves) -> None:
            if any(isinstance(after, JobRecord) for _, after in moves):
                home.plane.parts.state.listeners.remove(fail)
                raise ZeroDivisionError("a mistake")

        home.plane.parts.state.listeners.append(fail)
        with pytest.raises(KhonsuError), anyio.fail_after(10):
            await home.client.submit(service())
        await home.until(lambda: usable(home))
        assert picture(home) == before
        submission = await home.client.submit(service())
        assert (submission.outcome, (await home.client.wait(submission)).status) == ("created", "healthy")


async def test_a_job_that_no_decision_can_be_made_of_is_given_up_and_hurts_nobody() -> None:
    """Its evaluation fails, though the decision itself did; others are decided."""
    async with cluster(MemoryStore()) as home:
        await home.running("a")

        def fail(moves: Moves) -> None:
            if any(isinstance(after, JobRecord) and after.generation for _, after in moves):
                raise ZeroDivisionError("a mistake")

        home.plane.parts.state.listeners.append(fail)
        await home.client.submit(service("bad"))
        await home.until(lambda: usable(home) and "ZeroDivisionError" in home.tables.jobs["default/bad"].message)
        home.plane.parts.state.listeners.remove(fail)
        assert (await home.client.wait(await home.client.submit(service()))).status == "healthy"


@pytest.mark.parametrize("fails", [1, 2, 3])
async def test_work_goes_on_when_there_is_room_again(fails: int) -> None:
    """Whatever write is lost on the way, the job is healthy in the end, with one copy per slot."""
    store = Failing(MemoryStore())
    async with cluster(store) as home:
        await home.running("a")
        submission = await home.client.submit(service(count=3))
        store.fails = fails
        await home.until(lambda: usable(home) and not store.fails and len(home.copies("web", A.RUNNING)) == 3)
        assert (await home.client.wait(submission)).status == "healthy"
        assert sorted(one.slot for one in home.copies()) == [0, 1, 2]


async def test_a_full_disk_expires_nobody() -> None:
    """A lease is renewed although its reports cannot be written."""
    store = Failing(MemoryStore())
    async with cluster(store) as home:
        node = await home.node("a")
        await node.sync()
        heard = home.plane.parts.leases.book.heard_at(node.id)
        store.fails = 1
        node.facts = None
        with pytest.raises(StoreFull):
            await node.sync(boot_id="another")
        later = home.plane.parts.leases.book.heard_at(node.id)
        assert heard is not None
        assert later is not None
        assert later > heard
        await home.until(lambda: usable(home))
        assert home.tables.nodes[node.id].boot_id == "boot"


async def test_a_control_plane_runs_once_at_a_time_and_again() -> None:
    """The same store can be served by one control plane after the other, in one process, too."""
    store = MemoryStore()
    for outcome in ("created", "unchanged"):
        async with AsyncExitStack() as stack:
            plane = await stack.enter_async_context(ControlPlane(store=store))
            client = await stack.enter_async_context(plane.client())
            assert (await client.submit(service())).outcome == outcome
