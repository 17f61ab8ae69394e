"""On a clock that jumps, so that minutes of silence cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from attrs import evolve
from trio.testing import MockClock

from khonsu.core.job import Disconnect, Reschedule
from khonsu.core.leases import INTERVAL_SECONDS
from khonsu.core.records import NodeResources
from khonsu.core.reports import MESSAGE_LENGTH_MAX
from khonsu.core.states import AllocationStatus, Desired, Eligibility, NodeStatus
from khonsu.errors import Conflict, InvalidRequest, NotFound, Unauthenticated
from khonsu.testing import VirtualEnv
from tests.control.cluster import Cluster, Node, batch, cluster, facts, nodes_of, report, service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio

A = AllocationStatus


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run on a clock that jumps to the next thing that happens."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
async def home() -> AsyncGenerator[Cluster, None]:
    """Return a cluster on the virtual clock."""
    async with cluster(env=VirtualEnv()) as made:
        yield made


def status_of(home: Cluster, name: str) -> NodeStatus:
    """Return the status of a node."""
    node = home.tables.node_named(name)
    assert node is not None
    return node.status


async def two_with_a_copy(home: Cluster, **fields: object) -> tuple[Node, Node]:
    """Run one copy of a service on one of two nodes, and return that node and the other."""
    nodes = await home.running("a", "b")
    await home.client.wait(await home.client.submit(service(**fields)))  # type: ignore[arg-type]
    [copy] = home.copies()
    holder = next(node for node in nodes if node.name == copy.node)
    return holder, next(node for node in nodes if node is not holder)


async def test_a_node_that_calls_stays(home: Cluster) -> None:
    """Minutes pass, and a node that renews its lease is ready."""
    await home.running("a")
    await anyio.sleep(120.0)
    assert status_of(home, "a") is NodeStatus.READY
    assert await home.events("node-down") == []


async def test_a_silent_node_is_down_and_its_copies_are_replaced(home: Cluster) -> None:
    """Its copies are unknown, not lost, and others run instead."""
    holder, other = await two_with_a_copy(home)
    holder.kill()
    await home.until(lambda: status_of(home, holder.name) is NodeStatus.DOWN, seconds=12.0)
    await home.until(lambda: nodes_of(home.copies("web", A.RUNNING)) == [other.name])
    assert nodes_of(home.copies("web", A.UNKNOWN)) == [holder.name]


@pytest.mark.parametrize("keep", ["replacement", "original"])
async def test_of_a_returned_node_exactly_one_copy_survives(home: Cluster, keep: str) -> None:
    """The copy and its replacement are both there for a moment; one stops, as the job says."""
    holder, other = await two_with_a_copy(home, disconnect=Disconnect(keep=keep))  # type: ignore[arg-type]
    holder.kill()
    await home.until(lambda: nodes_of(home.copies("web", A.RUNNING)) == [other.name], seconds=30.0)
    await holder.sync(*holder.have.values())
    home.group.start_soon(holder.run)
    await home.until(lambda: len(home.copies()) == 1)
    await anyio.sleep(30.0)
    survivor = other if keep == "replacement" else holder
    assert nodes_of(home.copies("web", A.RUNNING)) == [survivor.name]
    assert len(home.copies("web", A.STOPPED)) == 1


async def test_a_copy_may_stay_unknown_for_a_while(home: Cluster) -> None:
    """With `replace_after` a silent node has time to return, and then nothing was moved."""
    holder, _ = await two_with_a_copy(home, disconnect=Disconnect(replace_after="60s"))
    holder.kill()
    await home.until(lambda: status_of(home, holder.name) is NodeStatus.DOWN, seconds=12.0)
    await anyio.sleep(20.0)
    assert len(home.copies()) == 1
    await holder.sync(*holder.have.values())
    assert status_of(home, holder.name) is NodeStatus.READY
    await home.until(lambda: len(home.copies("web", A.RUNNING)) == 1)
    holder.kill()
    await home.until(lambda: len(home.copies()) == 2, seconds=90.0)


async def test_most_nodes_vanishing_at_once_replaces_nothing(home: Cluster) -> None:
    """The fault is more likely ours: copies are moved only when some return."""
    nodes = await home.running("a", "b", "c", "d")
    await home.client.wait(await home.client.submit(service(count=4, max_per_node=2, cpu=2000)))
    for node in nodes[1:]:
        node.kill()
    await home.until(lambda: sum(n.status is NodeStatus.DOWN for n in home.tables.nodes.values()) == 3, seconds=15.0)
    live = len(home.copies())
    await anyio.sleep(60.0)
    assert len(home.copies()) == live == 4
    assert [type_ for type_, _ in await home.events("replacement-paused")] == ["replacement-paused"]
    for node in nodes[1:3]:
        await node.sync(*node.have.values())
        home.group.start_soon(node.run)
    await home.until(lambda: len(home.copies("web", A.RUNNING)) == 4, seconds=60.0)
    await anyio.sleep(1.0)
    assert [type_ for type_, _ in await home.events("replacement-resumed")] == ["replacement-resumed"]


async def test_a_drained_node_is_emptied(home: Cluster) -> None:
    """Its copies move, it gets nothing new, and is given work again when somebody says so."""
    holder, other = await two_with_a_copy(home)
    node = await home.client.drain_node(holder.name)
    assert node.eligibility is Eligibility.DRAINING
    await home.until(lambda: nodes_of(home.copies()) == [other.name])
    await home.until(lambda: home.tables.nodes[holder.id].eligibility is Eligibility.INELIGIBLE)
    await home.client.submit(service("all", type="system"))
    assert nodes_of(await home.until_copies("all", 1)) == [other.name]
    await home.client.undrain_node(holder.name)
    assert nodes_of(await home.until_copies("all", 2)) == ["a", "b"]


async def test_the_copies_of_system_jobs_leave_a_drained_node_last(home: Cluster) -> None:
    """They stop as soon as they are the only ones left, long before the deadline."""
    await home.client.submit(service("all", type="system"))
    holder, other = await two_with_a_copy(home)
    await home.until_copies("all", 2)
    await home.client.drain_node(holder.name, deadline="1h")
    await home.until(lambda: home.tables.nodes[holder.id].eligibility is Eligibility.INELIGIBLE)
    assert nodes_of(home.copies("all")) == [other.name]


async def test_the_copies_of_system_jobs_outlast_what_runs_once_on_every_node(home: Cluster) -> None:
    """Such a copy is work like any other: the system's serve it until it has ended."""
    [node] = await home.running("a")
    await home.client.submit(service("all", type="system"))
    await home.until_copies("all", 1)
    node.act = lambda _: "run"
    await home.client.submit(service("once", type="sysbatch"))
    [copy] = await home.until_copies("once", 1)
    await home.client.drain_node("a", deadline="1h")
    await anyio.sleep(30.0)
    assert len(home.copies("all", A.RUNNING)) == 1
    await node.sync(report(copy, A.COMPLETE, code=0))
    await home.until(lambda: home.tables.nodes[node.id].eligibility is Eligibility.INELIGIBLE)


async def test_a_node_that_joins_and_never_calls_is_down_after_a_lease(home: Cluster) -> None:
    """An agent may die between its join and its first call."""
    await home.node("a")
    await home.until(lambda: status_of(home, "a") is NodeStatus.DOWN, seconds=12.0)


async def test_a_drain_ends_at_its_deadline(home: Cluster) -> None:
    """A batch copy may finish until then, and is moved after it."""
    nodes = await home.running("a", "b")
    for node in nodes:
        node.act = lambda _: "run"
    await home.client.submit(batch())
    [copy] = await home.until_copies("work", 1)
    await home.client.drain_node(copy.node, deadline="60s")
    await anyio.sleep(50.0)
    assert home.copies("work") == [home.tables.allocations[copy.id]]
    await home.until(lambda: home.copies("work", A.STOPPED), seconds=15.0)
    await home.until(lambda: home.copies("work", A.RUNNING))
    assert home.copies("work")[0].node != copy.node


async def test_a_removed_node_is_forgotten(home: Cluster) -> None:
    """Only one that is down can go; its credential opens nothing, and it may join again as another node."""
    holder, other = await two_with_a_copy(home)
    with pytest.raises(Conflict, match="is ready"):
        await home.client.remove_node(holder.name)
    holder.kill()
    await home.until(lambda: status_of(home, holder.name) is NodeStatus.DOWN, seconds=12.0)
    await home.client.remove_node(holder.name)
    with pytest.raises(NotFound):
        await home.client.node(holder.name)
    with pytest.raises(Unauthenticated):
        await holder.sync()
    await home.until(lambda: nodes_of(home.copies()) == [other.name])
    again = await home.node(holder.name)
    assert again.id != holder.id
    with pytest.raises(Unauthenticated):
        await holder.sync()


async def test_a_name_is_taken_while_its_node_is_ready(home: Cluster) -> None:
    """A second machine of the same name is refused, and replaces the first once that is down."""
    [node] = await home.running("a")
    with pytest.raises(Conflict, match="is ready"):
        await home.joined("a")
    node.kill()
    await home.until(lambda: status_of(home, "a") is NodeStatus.DOWN, seconds=12.0)
    await home.joined("a")
    with pytest.raises(Unauthenticated):
        await node.sync()


async def test_the_id_of_a_node_as_a_name_takes_nothing_from_it(home: Cluster) -> None:
    """Who joins under the id of another node gets that as its name, and the other stays."""
    node = await home.node("a")
    await home.joined(node.id)
    assert sorted(home.tables.node_ids) == sorted(["a", node.id])


async def test_a_letter_is_too_little_to_name_a_node(home: Cluster) -> None:
    """Only a name, an id or a longer beginning of one says which node is meant."""
    node = await home.node("alpha")
    with pytest.raises(NotFound):
        await home.client.node(node.id[0])
    assert (await home.client.node(node.id[:4].upper())).name == "alpha"


async def two_agents(home: Cluster) -> tuple[Node, Node]:
    """Return two agents with one identity, of which the second has taken the place of the first."""
    answer = await home.joined("a")
    first = Node(await home.connect(answer.credential), "a", answer.node, "first")
    second = Node(await home.connect(answer.credential), "a", answer.node, "second")
    await first.sync()
    await second.sync()
    return first, second


async def test_of_two_agents_with_one_identity_the_later_goes_on(home: Cluster) -> None:
    """The earlier is told that another has taken its place."""
    first, second = await two_agents(home)
    with pytest.raises(Conflict, match="two agents"):
        await first.sync()
    first.seen = None
    with pytest.raises(Conflict, match="two agents"):
        await first.sync()
    await second.sync()


async def test_a_node_without_work_leaves_at_once(home: Cluster) -> None:
    """Who says goodbye need not be waited for."""
    node = await home.node("a")
    await node.sync()
    await node.leave()
    assert status_of(home, "a") is NodeStatus.DOWN


async def test_a_node_that_an_operator_drained_stays_drained_when_its_agent_drains_at_its_exit(home: Cluster) -> None:
    """Only the drain that an agent asked for ends with its next start."""
    [node] = await home.running("a")
    await home.client.drain_node("a")
    await home.until(lambda: home.tables.nodes[node.id].eligibility is Eligibility.INELIGIBLE)
    await node.leave(drain=True)
    node.kill()
    node.session, node.seen = "next", None
    await node.sync()
    assert home.tables.nodes[node.id].eligibility is Eligibility.INELIGIBLE


async def test_a_rebooted_node_has_lost_what_it_had(home: Cluster) -> None:
    """An agent that starts and does not know its copies has lost them, and they run again."""
    holder, _ = await two_with_a_copy(home)
    holder.kill()
    holder.have.clear()
    holder.seen, holder.session = None, "anew"
    await holder.sync(boot_id="another")
    assert home.copies("web", A.LOST)[0].message == "the machine was started anew"
    home.group.start_soon(holder.run)
    await home.until(lambda: home.copies("web", A.RUNNING))


async def test_a_first_request_that_comes_late_loses_nothing(home: Cluster) -> None:
    """A first request that took long on its way tells of a time before the copies that were begun since."""
    [node] = await home.running("a")
    await home.client.submit(service())
    [copy] = await home.until_copies("web", 1)
    node.kill()
    seen, node.seen, node.have = node.seen, None, {}
    await node.sync()
    assert [one.status for one in home.copies("web")] == [A.RUNNING]
    node.seen, node.have = seen, {copy.id: report(copy, A.RUNNING)}


async def test_a_copy_that_was_given_up_and_still_runs_is_stopped(home: Cluster) -> None:
    """An agent that tells of a copy that is lost here is told to stop it, and a silent node is asked for all it has."""
    holder, _ = await two_with_a_copy(home)
    [copy] = home.copies()
    holder.kill()
    holder.have.clear()
    holder.seen, holder.session = None, "anew"
    await holder.sync()
    assert [one.id for one in home.copies("web", A.LOST)] == [copy.id]
    answer = await holder.sync(report(copy, A.RUNNING))
    assert [(one.id, one.desired) for one in answer.assignments if one.id == copy.id] == [(copy.id, Desired.STOP)]


async def test_an_agent_that_comes_back_is_told_of_what_was_given_up(home: Cluster) -> None:
    """A copy that was given up while its node was silent is to be stopped there, also within the same run."""
    holder, _ = await two_with_a_copy(home, disconnect=Disconnect(stop_after="30s"))
    [copy] = home.copies()
    holder.kill()
    await home.until(lambda: home.copies("web", A.LOST), seconds=120.0)
    answer = await holder.sync()
    assert not answer.complete
    assert [(one.id, one.desired) for one in answer.assignments] == [(copy.id, Desired.STOP)]
    assert (await holder.sync(report(copy, A.STOPPED))).forget == (copy.id,)
    holder.seen = None
    assert (await holder.sync()).assignments == ()


async def test_only_the_present_agent_of_a_node_says_goodbye(home: Cluster) -> None:
    """One whose place was taken does not end the lease of the other."""
    first, second = await two_agents(home)
    with pytest.raises(Conflict, match="two agents"):
        await first.leave(session="first")
    assert status_of(home, "a") is NodeStatus.READY
    await second.leave(session="second")
    assert status_of(home, "a") is NodeStatus.DOWN


async def test_a_node_that_was_silent_is_asked_for_all_it_has(home: Cluster) -> None:
    """Its agent may not know that it was missed; what it has is unknown until it tells of it."""
    holder, _ = await two_with_a_copy(home)
    [copy] = home.copies()
    holder.kill()
    await home.until(lambda: status_of(home, holder.name) is NodeStatus.DOWN, seconds=60.0)
    assert (await holder.sync()).tell_all
    assert not (await holder.sync(report(copy, A.RUNNING))).tell_all


async def test_what_stays_unknown_is_asked_for_once_in_a_while(home: Cluster) -> None:
    """A copy that is being prepared stays unknown: an agent that was asked each time would tell without a pause."""
    holder, _ = await two_with_a_copy(home)
    [copy] = home.copies()
    holder.kill()
    await home.until(lambda: status_of(home, holder.name) is NodeStatus.DOWN, seconds=60.0)
    assert (await holder.sync()).tell_all
    for _ in range(3):
        assert not (await holder.sync(report(copy, A.STARTING))).tell_all
    await anyio.sleep(INTERVAL_SECONDS)
    assert (await holder.sync()).tell_all


async def test_a_failed_copy_is_placed_again_with_back_off(home: Cluster) -> None:
    """Each try comes later than the one before."""
    [node] = await home.running("a")
    node.act = lambda _: "fails"
    began = anyio.current_time()
    policy = Reschedule(delay="10s", delay_max="10m")
    await home.client.submit(service(reschedule=policy))
    await home.until(lambda: len(home.copies("web", A.FAILED)) == 3, seconds=300.0)
    assert anyio.current_time() - began >= 10.0
    node.act = lambda _: "run"
    await home.until(lambda: home.copies("web", A.RUNNING), seconds=300.0)


async def test_a_batch_job_fails_after_its_attempts(home: Cluster) -> None:
    """A batch job is tried on another place, and then ends as failed with the exit code."""
    nodes = await home.running("a", "b")
    for node in nodes:
        node.act = lambda _: "fails"
    result = await home.client.run(batch(), timeout="1h")
    assert (result.status, result.exit_code) == ("failed", 1)
    assert len(home.copies("work", A.FAILED)) == 2


async def test_late_and_foreign_reports_change_nothing(home: Cluster) -> None:
    """An end is final, and a node speaks of its own copies only."""
    holder, other = await two_with_a_copy(home)
    [copy] = home.copies()
    holder.kill()
    other.kill()
    await other.sync(report(copy, A.FAILED, code=1))
    assert home.tables.allocations[copy.id].status is A.RUNNING
    await holder.sync(report(copy, A.STARTING))
    assert home.tables.allocations[copy.id].status is A.RUNNING
    await holder.sync(report(copy, A.COMPLETE, code=0))
    await holder.sync(report(copy, A.RUNNING))
    assert home.tables.allocations[copy.id].status is A.COMPLETE


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"labels": {"disk": "x" * 10_000}}, "facts.labels.disk"),
        ({"labels": {f"label{number}": "x" * 200 for number in range(10_000)}}, "at most 1048576 bytes"),
        ({"labels": {"no name": "x"}}, "facts.labels.no name"),
        ({"attributes": {"os": "x" * 2**21}}, "at most 1048576 bytes"),
        ({"pool": "a/b"}, "facts.pool"),
        ({"boot_id": "x" * 10_000}, "facts.boot_id"),
        ({"resources": NodeResources(cpu_millis=-1, memory_bytes=0, disk_bytes=0)}, "facts.resources.cpu_millis"),
    ],
)
async def test_facts_are_checked_whenever_they_are_told(home: Cluster, wrong: dict[str, Any], words: str) -> None:
    """A node cannot say later what it could not have joined with."""
    node = await home.node("a")
    before = home.tables.nodes[node.id]
    node.facts = facts(**wrong)
    with pytest.raises(InvalidRequest, match=words):
        await node.sync()
    assert home.tables.nodes[node.id] == before
    with pytest.raises(InvalidRequest, match=words):
        await home.joined("b", **wrong)


async def test_what_a_session_says_of_itself_is_bounded(home: Cluster) -> None:
    """What is remembered of every request has a bound."""
    node = await home.node("a")
    with pytest.raises(InvalidRequest, match="boot_id"):
        await node.sync(boot_id="x" * 10_000)
    with pytest.raises(InvalidRequest, match="session"):
        await node.sync(session="x" * 10_000)


async def test_a_report_tells_of_the_tasks_that_there_are_in_few_words(home: Cluster) -> None:
    """What an agent says of a copy takes no more room than the copy's story needs."""
    holder, _ = await two_with_a_copy(home)
    [copy] = home.copies()
    said = report(copy, A.RUNNING, message="x" * 100_000)
    invented = tuple(evolve(said.tasks[0], name=f"task{number}") for number in range(100))
    loud = evolve(said.tasks[0], message="x" * 100_000)
    await holder.sync(evolve(said, tasks=(loud, *invented)))
    known = home.tables.allocations[copy.id]
    assert [task.name for task in known.tasks] == ["web"]
    assert len(known.message) == len(known.tasks[0].message) == MESSAGE_LENGTH_MAX


@pytest.mark.parametrize("last", [A.RUNNING, A.FAILED])
async def test_of_two_reports_of_a_copy_the_last_counts(home: Cluster, last: AllocationStatus) -> None:
    """A node that contradicts itself in one request hurts nobody else."""
    holder, _ = await two_with_a_copy(home)
    [copy] = home.copies()
    holder.kill()
    await holder.sync(report(copy, A.COMPLETE, code=0), report(copy, last))
    assert home.tables.allocations[copy.id].status is last
    await holder.sync(report(copy, A.STOPPED))
    assert home.tables.allocations[copy.id].status is (A.STOPPED if last is A.RUNNING else last)
