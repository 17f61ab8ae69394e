"""The client, with a control plane and an agent in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from anyio.streams.memory import MemoryObjectReceiveStream

import khonsu
from khonsu.client.client import Client
from khonsu.control.streams import Streams
from khonsu.core.records import Node
from khonsu.testing import FakeConfig, FakeDriver

pytestmark = pytest.mark.anyio

QUICK = khonsu.Update(healthy_for=0.0)


def service(name: str = "web", **fields: object) -> khonsu.Job:
    """Return a service that runs until it is stopped."""
    return khonsu.Job.single(name, FakeConfig(), update=QUICK, **fields)  # type: ignore[arg-type]


def batch(name: str = "work", *, exit_code: int = 0, **fields: object) -> khonsu.Job:
    """Return a batch job that ends at once."""
    once = khonsu.Restart(attempts=0)
    never = khonsu.Reschedule(attempts=0)
    config = FakeConfig(run_seconds=0.0, exit_code=exit_code)
    return khonsu.Job.single(name, config, type="batch", restart=once, reschedule=never, **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def cluster(directory: Path) -> AsyncIterator[khonsu.ControlPlane]:
    """Own a control plane with one node, named home."""
    async with (
        khonsu.ControlPlane(store=khonsu.MemoryStore()) as control,
        khonsu.Agent(
            "home", transport=control.transport(), drivers=[FakeDriver()], data_dir=directory / "home", on_exit="stop"
        ),
    ):
        yield control


async def test_jobs_run_and_are_waited_for(data_dir: Path) -> None:
    """A service is done when it is healthy, a batch job when it finished; failures are returned."""
    async with cluster(data_dir) as control:
        client = control.client()
        healthy = await client.run(service(count=2))
        assert (healthy.status, healthy.exit_code, len(healthy.allocations)) == ("healthy", None, 2)
        assert (await client.run(batch())).exit_code == 0
        failed = await client.run(batch("bad", exit_code=7))
        assert (failed.status, failed.exit_code) == ("failed", 7)
        with pytest.raises(khonsu.JobFailed) as caught:
            failed.raise_for_status()
        assert caught.value.result is failed
        assert [job.name for job in await client.jobs()] == ["bad", "web", "work"]


async def test_a_submission_says_what_it_did(data_dir: Path) -> None:
    """The same spec changes nothing; a finished batch job runs again only when asked to."""
    async with cluster(data_dir) as control, control.client() as client:
        assert (await client.submit(batch())).outcome == "created"
        await client.wait("work", timeout="20s")
        assert (await client.submit(batch())).outcome == "unchanged"
        again = await client.submit(batch(), rerun=True)
        assert (again.outcome, again.run) == ("rerun", 2)
        assert (await client.wait(again, timeout="20s")).run == 2
        with pytest.raises(khonsu.VersionConflict):
            await client.submit(batch(priority=60), expect_version=7)
        changed = await client.submit(batch(priority=60), expect_version=1)
        assert (changed.outcome, changed.version) == ("updated", 2)
        assert [version.version for version in await client.history("work")] == [2, 1]


async def test_a_repeat_under_the_same_key_is_the_same_submission(data_dir: Path) -> None:
    """An idempotency key stands for one request; another body under it is refused."""
    async with cluster(data_dir) as control:
        client = control.client()
        first = await client.submit(service(), idempotency_key="k")
        assert await client.submit(service(), idempotency_key="k") == first
        with pytest.raises(khonsu.Conflict):
            await client.submit(service(count=2), idempotency_key="k")


async def test_what_has_no_place_is_returned_with_the_reason(data_dir: Path) -> None:
    """A blocked job has the explanation of every node, also where time ran out."""
    huge = service(resources=khonsu.Resources(cpu=90_000))
    async with cluster(data_dir) as control:
        client = control.client()
        submission = await client.submit(huge)
        blocked = await client.wait(submission, placement_timeout=0.0)
        assert (blocked.status, blocked.unplaced) == ("blocked", 1)
        assert blocked.explanation is not None
        assert "cpu" in str(blocked.explanation.groups[0].nodes[0].refusals[0])
        with pytest.raises(khonsu.Unplaceable):
            blocked.raise_for_status()
        with pytest.raises(khonsu.WaitTimeout) as caught:
            await client.wait(submission, timeout=0.01)
        assert isinstance(caught.value.result, khonsu.JobResult)
        assert caught.value.result.explanation is not None
        assert not (await client.plan(huge)).placeable


async def test_progress_is_told_on_the_way(data_dir: Path) -> None:
    """Whoever waits can see how it goes, and be content when each copy has a place."""
    async with cluster(data_dir) as control:
        client = control.client()
        seen: list[khonsu.JobResult] = []
        submission = await client.submit(service(count=3))
        placed = await client.wait(submission, until="placed", progress=seen.append)
        assert placed.unplaced == 0
        assert seen[-1].allocations == placed.allocations


async def test_a_run_that_was_overtaken_says_so(data_dir: Path) -> None:
    """A wait is for one run: a later version makes it superseded, a stop makes it stopped."""
    async with cluster(data_dir) as control:
        client = control.client()
        first = await client.submit(service())
        second = await client.submit(service(count=2))
        assert (await client.wait(first)).status == "superseded"
        assert (await client.wait(second, timeout="20s")).status == "healthy"
        await client.stop("web")
        assert (await client.wait(second)).status == "stopped"


async def test_a_job_without_a_namespace_is_in_the_clients(data_dir: Path) -> None:
    """A client's namespace is that of names, and of jobs that name none; others keep theirs."""
    async with cluster(data_dir) as control:
        shop = control.client(namespace="shop")
        assert (await shop.submit(service())).namespace == "shop"
        assert (await shop.submit(service("till", namespace="cash"))).namespace == "cash"
        assert [job.name for job in await shop.jobs()] == ["web"]
        assert (await shop.wait(service(), timeout="20s")).namespace == "shop"
        assert (await shop.job(service("till", namespace="cash"))).namespace == "cash"
        with pytest.raises(khonsu.NotFound):
            await control.client().job("web")
        info = await shop.job("web")
        assert (await control.client().stop(info)).stopped


async def test_objects_and_prefixes_stand_for_names(data_dir: Path) -> None:
    """Wherever a name or id is wanted, the object or a unique prefix will do."""
    async with cluster(data_dir) as control:
        client = control.client()
        result = await client.run(service())
        allocation = result.allocations[0]
        assert (await client.allocation(allocation.id[:6])).id == allocation.id
        assert (await client.allocation(allocation)).id == allocation.id
        node = await client.node("home")
        assert (await client.node(node.id[:6])).name == "home"
        assert [one.id for one in await client.allocations(job=result, node=node)] == [allocation.id]
        with pytest.raises(khonsu.NotFound) as caught:
            await client.job("wbe")
        assert caught.value.nearest == "web"


async def test_a_stopped_copy_is_placed_again(data_dir: Path) -> None:
    """`stop_allocation` moves one copy; the job goes on."""
    async with cluster(data_dir) as control:
        client = control.client()
        before = (await client.run(service())).allocations[0]
        assert (await client.stop_allocation(before)).desired == "stop"
        async with client.events(job="web", types=["allocation-healthy"]) as events:
            healthy = [(await anext(events)).allocation for _ in range(2)]
        assert healthy[0] == before.id
        assert healthy[1] == (await client.job("web")).allocations[0].id


async def test_scale_and_revert_make_versions(data_dir: Path) -> None:
    """Another count is a new version; so is going back."""
    async with cluster(data_dir) as control:
        client = control.client()
        await client.run(service())
        assert (await client.scale("web", 3)).version == 2
        assert len((await client.wait("web", timeout="20s")).allocations) == 3
        assert (await client.revert("web", version=1)).version == 3
        assert (await client.wait("web", timeout="20s")).status == "healthy"
        explanation = await client.explain("web")
        assert [group.group for group in explanation.groups] == ["main"]


async def test_events_can_be_resumed(data_dir: Path) -> None:
    """Each event has the revision after which a later stream goes on."""
    async with cluster(data_dir) as control:
        client = control.client()
        await client.run(batch())
        async with client.events(job="work", follow=False) as stream:
            events = [event async for event in stream]
        middle = events[0].revision
        async with client.events(after=middle, job="work", follow=False) as stream:
            rest = [event async for event in stream]
        assert rest == [event for event in events if event.revision > middle]
        ahead = khonsu.Revision(middle.term, middle.number + 1_000_000)
        with pytest.raises(khonsu.HistoryGone):
            async with client.events(after=ahead):
                pass


async def test_what_logs_are_wanted_of_must_be_there(data_dir: Path) -> None:
    """A text is a job's name first, then an allocation's id; neither is told with the job's name."""
    async with cluster(data_dir) as control:
        client = control.client()
        allocation = (await client.run(batch())).allocations[0]
        for target in ("work", allocation.id, allocation):
            async with client.logs(target) as lines:
                assert [line.text async for line in lines] == []
        with pytest.raises(khonsu.NotFound) as caught:
            async with client.logs("nothing"):
                pass
        assert (caught.value.kind, caught.value.name) == ("job", "nothing")
        with pytest.raises(khonsu.InvalidRequest, match="tail: found 10001, expected at most 10000 lines"):
            async with client.logs("work", tail=10_001):
                pass


async def test_logs_go_on_when_the_agent_is_started_anew(data_dir: Path) -> None:
    """Whoever follows a job misses no line and hears none twice, while the task runs on without its agent."""
    count = khonsu.BinaryConfig("/bin/sh", args=["-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"])
    async with khonsu.ControlPlane(store=khonsu.MemoryStore()) as control:

        def agent(on_exit: Literal["leave", "stop"]) -> khonsu.Agent:
            home, drivers = data_dir / "home", [khonsu.BinaryDriver()]
            return khonsu.Agent("home", transport=control.transport(), drivers=drivers, data_dir=home, on_exit=on_exit)

        client = control.client()
        async with AsyncExitStack() as stack:
            async with agent("leave"):
                await client.run(khonsu.Job.single("count", count, update=QUICK), timeout="30s")
                lines = await stack.enter_async_context(client.logs("count", follow=True))
                heard = [int((await anext(lines)).text) for _ in range(3)]
            async with agent("stop"):
                heard += [int((await anext(lines)).text) for _ in range(20)]
        assert heard == list(range(23))


async def test_logs_on_a_node_that_is_gone(data_dir: Path) -> None:
    """That they cannot be had is said before the stream begins, and on which node they are."""
    async with khonsu.ControlPlane(store=khonsu.MemoryStore()) as control:
        client = control.client()
        agent = khonsu.Agent("home", transport=control.transport(), drivers=[FakeDriver()], data_dir=data_dir / "home")
        async with agent:
            await client.run(batch())
        # Without work, an agent that leaves says so.
        for follow in (False, True):
            with pytest.raises(khonsu.Unavailable, match="on node home, which is down"):
                async with client.logs("work", follow=follow):
                    pass
        await client.remove_node("home")
        with pytest.raises(khonsu.Unavailable, match="which was removed"):
            async with client.logs("work"):
                pass


async def hear(client: Client, job: str, heard: list[str]) -> None:
    """Note each line of a job as it comes."""
    async with client.logs(job) as lines:
        async for line in lines:
            heard += [line.text]


async def test_logs_of_copies_of_which_one_cannot_be_asked(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are shown, and then it is said which agent did not answer."""
    asked = Streams.open

    @asynccontextmanager
    async def opened(
        self: Streams, node: Node, operation: str, parameters: Mapping[str, Any]
    ) -> AsyncIterator[MemoryObjectReceiveStream[bytes]]:
        if parameters["allocation"] == silent:
            raise khonsu.Unavailable("the agent of node home does not answer")
        async with asked(self, node, operation, parameters) as chunks:
            yield chunks

    async with khonsu.ControlPlane(store=khonsu.MemoryStore()) as control:
        home, drivers = data_dir / "home", [khonsu.BinaryDriver()]
        client = control.client()
        async with khonsu.Agent("home", transport=control.transport(), drivers=drivers, data_dir=home, on_exit="stop"):
            once = khonsu.BinaryConfig("/bin/echo", args=["hello"])
            done = await client.run(khonsu.Job.single("says", once, type="batch", count=3), timeout="30s")
            silent = done.allocations[0].id
            monkeypatch.setattr(Streams, "open", opened)
            heard: list[str] = []
            with pytest.raises(khonsu.Unavailable, match="does not answer"):
                await hear(client, "says", heard)
            assert heard == ["hello", "hello"]


async def test_nodes_are_drained_and_invited(data_dir: Path) -> None:
    """An operator moves work off a node, gives it work again, and makes join tokens."""
    async with cluster(data_dir) as control:
        client = control.client()
        assert [node.name for node in await client.wait_for_nodes(1)] == ["home"]
        assert not (await client.drain_node("home", deadline="1m")).schedulable
        with pytest.raises(khonsu.WaitTimeout) as caught:
            await client.wait_for_nodes(1, timeout=0.0)
        assert caught.value.result == ()
        assert (await client.undrain_node("home")).schedulable
        with pytest.raises(khonsu.Conflict):
            await client.remove_node("home")
        invitation = await client.invite_node(name="mac", labels={"disk": "ssd"})
        assert invitation.token not in repr(invitation)
        assert (await client.status()).nodes_ready == 1


async def test_a_client_dials_nothing_until_it_asks() -> None:
    """Making a client, and entering it, needs no server."""
    async with Client("https://127.0.0.1:1", token="t", ca=None):
        pass


def test_what_comes_later_is_refused_until_then() -> None:
    """An argument that is there already says that it does nothing yet."""
    with pytest.raises(khonsu.InvalidRequest, match="scheduler_processes: not supported yet"):
        khonsu.ControlPlane(store=khonsu.MemoryStore(), scheduler_processes=2)
    with pytest.raises(khonsu.InvalidRequest, match="'reader' is not supported yet"):
        khonsu.ControlPlane(store=khonsu.MemoryStore()).client(role="reader")
