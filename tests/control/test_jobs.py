from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
from attrs import evolve

from khonsu.abc.scheduler import Scheduler
from khonsu.abc.transport import Request
from khonsu.api.limits import JOB_BYTES_MAX
from khonsu.control import plane
from khonsu.core.brief import brief_job
from khonsu.core.codec import to_json
from khonsu.core.job import Job
from khonsu.core.states import AllocationStatus, JobStatus
from khonsu.errors import Conflict, InvalidJob, InvalidRequest, NotFound, VersionConflict
from tests.control.cluster import Cluster, batch, cluster, nodes_of, service

if TYPE_CHECKING:
    from khonsu.abc.store import Store
    from khonsu.core.changes import Changes
    from khonsu.core.plan import Plan, Snapshot
    from khonsu.core.records import Evaluation

pytestmark = pytest.mark.anyio

A = AllocationStatus


async def test_what_changes_nothing_is_answered_at_once(home: Cluster) -> None:
    """A repeat without an idempotency key writes nothing, so that it waits for no write."""
    node = await home.node("a")
    await home.client.submit(service())
    operator = await home.operator()
    again = Request(operation="job.stop", body={"name": "web"})
    await operator.call(again)
    await home.until(lambda: not home.tables.evaluations)
    with anyio.fail_after(1.0):
        await operator.call(again)
        await operator.call(Request(operation="node.undrain", body={"name": node.name}))


async def test_a_service_is_placed_and_becomes_healthy(store: Store) -> None:
    """What is submitted runs on the nodes that are there."""
    async with cluster(store) as home:
        await home.running("a", "b")
        submission = await home.client.submit(service(count=3))
        assert (submission.outcome, submission.version, submission.run) == ("created", 1, 1)
        result = await home.client.wait(submission)
        assert result.status == "healthy"
        assert len(home.copies()) == 3
        info = await home.client.job("web")
        assert (info.status, info.stable_version) == (JobStatus.RUNNING, 1)


async def test_a_batch_job_completes(home: Cluster) -> None:
    """Every copy runs once, and the job ends with the exit code 0."""
    await home.running("a")
    result = await home.client.run(batch(count=6))
    assert (result.status, result.exit_code) == ("complete", 0)
    assert len(home.copies("work", A.COMPLETE)) == 6
    explanation = await home.client.explain("work")
    assert explanation.message == "the job is complete: nothing of it is to be placed"
    assert [(group.placed, group.wanted) for group in explanation.groups] == [(0, 0)]


async def test_a_system_job_follows_the_nodes(home: Cluster) -> None:
    """Every node gets one copy, and so does a node that joins later."""
    await home.running("a", "b")
    await home.client.submit(service("all", type="system"))
    assert nodes_of(await home.until_copies("all", 2)) == ["a", "b"]
    await home.running("c")
    assert nodes_of(await home.until_copies("all", 3)) == ["a", "b", "c"]


async def test_a_sysbatch_job_runs_once_on_every_node(home: Cluster) -> None:
    """It is complete when every node that is there has run it, and again when one that joins later has."""
    await home.running("a", "b")
    result = await home.client.run(service("all", type="sysbatch"))
    assert (result.status, result.exit_code) == ("complete", 0)
    assert nodes_of(home.copies("all", A.COMPLETE)) == ["a", "b"]
    await home.running("c")
    await home.until(lambda: nodes_of(home.copies("all", A.COMPLETE)) == ["a", "b", "c"])
    assert (await home.client.wait("all")).status == "complete"


async def test_a_key_makes_a_submit_happen_once(store: Store) -> None:
    """A repeat gets the same answer; another body under the key is refused."""
    async with cluster(store) as home:
        operator = await home.operator()

        def request(job: Any, operation: str = "job.submit") -> Request:
            return Request(operation=operation, body={"job": to_json(job)}, idempotency_key="once")

        first = await operator.call(request(service()))
        await home.client.submit(service(count=2))
        again = await operator.call(request(service()))
        assert again.body == first.body
        assert (await home.client.job("web")).version == 2
        with pytest.raises(Conflict, match="used for another request"):
            await operator.call(request(service(count=5)))
        await operator.call(Request(operation="job.submit", body={"job": to_json(service())}, idempotency_key="two"))
        assert (await home.client.job("web")).version == 3


async def test_a_refused_request_leaves_its_key_free(home: Cluster) -> None:
    """A key is only spent on a request that was carried out."""
    operator = await home.operator()
    wrong = Request(operation="job.submit", body={"job": {"name": "Ä"}}, idempotency_key="k")
    with pytest.raises(InvalidJob):
        await operator.call(wrong)
    right = Request(operation="job.submit", body={"job": to_json(service())}, idempotency_key="k")
    assert (await operator.call(right)).body["outcome"] == "created"


async def test_an_equal_spec_changes_nothing(home: Cluster) -> None:
    """The same again is unchanged; another spec is another version."""
    await home.client.submit(service())
    events = len(await home.events())
    again = await home.client.submit(service())
    assert (again.outcome, again.version) == ("unchanged", 1)
    assert len(await home.events()) == events
    changed = await home.client.submit(service(count=2))
    assert (changed.outcome, changed.version) == ("updated", 2)
    assert [one.version for one in await home.client.history("web")] == [2, 1]


async def test_a_finished_batch_job_can_run_again(home: Cluster) -> None:
    """Only a wish to rerun does it; it is a run of its own."""
    await home.running("a")
    first = await home.client.run(batch())
    assert (await home.client.submit(batch())).outcome == "unchanged"
    second = await home.client.submit(batch(), rerun=True)
    assert (second.outcome, second.version, second.run) == ("rerun", 1, first.run + 1)
    assert (await home.client.wait(second)).status == "complete"
    assert len(home.copies("work", A.COMPLETE)) == 2


async def test_a_job_of_many_groups_is_sent_in_its_short_form(home: Cluster) -> None:
    """It is the same job, and ten thousand of its groups fit into a request."""
    [group] = service().groups
    many = Job("many", groups=[evolve(group, name=f"group-{number}") for number in range(100)])
    operator = await home.operator()
    await home.client.submit(many)
    [version] = await home.client.history("many")
    assert version.spec == many
    answer = await operator.call(Request(operation="job.submit", body={"job": to_json(many)}))
    assert answer.body["outcome"] == "unchanged"
    assert len(json.dumps(brief_job(many))) * 100 < JOB_BYTES_MAX < len(json.dumps(to_json(many))) * 100


async def test_an_expected_version_is_checked(home: Cluster) -> None:
    """Who read an older version is told; 0 expects that there is no such job."""
    with pytest.raises(VersionConflict):
        await home.client.submit(service(), expect_version=1)
    await home.client.submit(service(), expect_version=0)
    with pytest.raises(VersionConflict):
        await home.client.submit(service(count=2), expect_version=0)
    await home.client.submit(service(count=2), expect_version=1)
    assert (await home.client.job("web")).version == 2


async def test_every_mistake_is_told_at_once(home: Cluster) -> None:
    """A wrong job is refused with all that is wrong, and nothing is kept."""
    operator = await home.operator()
    wrong = {
        "name": "Not A Name",
        "priority": 1000,
        "scheduler": "binpak",
        "groups": [{"name": "main", "count": -1, "tasks": [{"name": "t", "driver": "fake", "config": {}}]}],
    }
    with pytest.raises(InvalidJob) as caught:
        await operator.call(Request(operation="job.submit", body={"job": wrong}))
    paths = " ".join(problem.path for problem in caught.value.problems)
    for path in ("name", "priority", "groups[0].count"):
        assert path in paths
    assert await home.client.jobs() == ()


async def test_an_unknown_key_is_passed_over_and_told(home: Cluster) -> None:
    """It may be of a later version, or mistyped: the job is taken, and the answer has the nearest name."""
    operator = await home.operator()
    table = {**to_json(service()), "prioritty": 99}
    for outcome in ("created", "unchanged"):
        answer = await operator.call(Request(operation="job.submit", body={"job": table}))
        assert answer.body["outcome"] == outcome
        assert answer.body["warnings"] == ["prioritty is not known here and was passed over (did you mean priority?)"]


async def test_an_unknown_scheduler_is_refused_with_the_nearest(home: Cluster) -> None:
    """A job whose scheduler nobody has is told which it may have meant."""
    with pytest.raises(InvalidJob) as caught:
        await home.client.submit(service(scheduler="binpak"))
    assert [(one.path, one.nearest) for one in caught.value.problems] == [("scheduler", "binpack")]


async def test_parameters_of_the_wrong_kind_are_refused(home: Cluster) -> None:
    """A request that is no request is told what was expected."""
    operator = await home.operator()
    await home.client.submit(service())
    for body in (
        {"name": "web", "count": "two"},
        {"name": "web"},
        {"name": 7, "count": 1},
        {"name": "web", "count": -1},
    ):
        with pytest.raises(InvalidRequest):
            await operator.call(Request(operation="job.scale", body=body))
    with pytest.raises(InvalidRequest):
        await operator.call(Request(operation="job.submit", body={"job": "web"}))


async def test_what_is_not_there_is_told_with_the_nearest(home: Cluster) -> None:
    """A job that is not there is answered with the nearest name."""
    await home.client.submit(service("website"))
    with pytest.raises(NotFound, match="websit"):
        await home.client.job("websit")


async def test_a_stopped_job_stops_its_copies(home: Cluster) -> None:
    """All copies end as stopped; a submit starts it anew."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service(count=2)))
    info = await home.client.stop("web")
    assert (info.stopped, info.status) == (True, JobStatus.STOPPED)
    await home.until(lambda: len(home.copies("web", A.STOPPED)) == 2)
    with pytest.raises(Conflict):
        await home.client.scale("web", 5)
    again = await home.client.submit(service(count=2))
    assert (again.outcome, again.run) == ("updated", 2)
    assert (await home.client.wait(again)).status == "healthy"


async def test_a_purged_job_is_forgotten_after_its_copies(home: Cluster) -> None:
    """It goes when nothing of it runs any more, and its name is free."""
    node = await home.node("a")
    await home.client.submit(service())
    await home.until_copies("web", 1, A.PENDING)
    await node.work()
    await home.client.stop("web", purge=True)
    assert (await home.client.job("web")).stopped
    await node.work(hold=5.0)
    await home.until(lambda: "default/web" not in home.tables.jobs)
    with pytest.raises(NotFound):
        await home.client.job("web")
    assert not home.tables.allocations
    assert (await home.client.submit(service(count=2))).outcome == "created"


async def test_a_job_without_copies_is_purged_at_once(home: Cluster) -> None:
    """Nothing has to be waited for."""
    await home.client.submit(service())
    await home.client.stop("web", purge=True)
    await home.until(lambda: not home.tables.jobs)


async def test_a_job_can_be_scaled(home: Cluster) -> None:
    """The count changes in a new version; copies are added, and the last slots go."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service(count=1)))
    more = await home.client.scale("web", 3)
    assert (more.outcome, more.version) == ("updated", 2)
    await home.until(lambda: len(home.copies("web", A.RUNNING)) == 3)
    await home.client.scale("web", 1)
    await home.until(lambda: len(home.copies("web", A.STOPPED)) == 2)
    assert [one.slot for one in home.copies("web", A.RUNNING)] == [0]
    assert (await home.client.scale("web", 1)).outcome == "unchanged"
    over = await home.client.submit(service(count=2))
    assert "overrides the 1" in over.warnings[0]


async def test_a_job_can_be_reverted(home: Cluster) -> None:
    """An earlier spec becomes a new version."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service(command="one")))
    await home.client.wait(await home.client.submit(service(command="two")))
    back = await home.client.revert("web", version=1)
    assert (back.version, (await home.client.wait(back)).status) == (3, "healthy")
    info = await home.client.job("web")
    assert info.spec is not None
    assert info.spec.groups[0].tasks[0].env == {"COMMAND": "one"}
    with pytest.raises(NotFound):
        await home.client.revert("web", version=9)


async def test_a_stopped_copy_is_placed_again(home: Cluster) -> None:
    """An operator's stop of one copy makes room for another in its slot."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service()))
    [copy] = home.copies()
    await home.client.stop_allocation(copy.id)
    await home.until(lambda: home.copies("web", A.STOPPED) and home.copies("web", A.RUNNING))
    assert home.copies("web", A.RUNNING)[0].generation > copy.generation


async def test_namespaces_are_separate(home: Cluster) -> None:
    """The same name in two namespaces is two jobs; neither list shows the other's."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service()))
    async with home.plane.client(namespace="other") as other:
        assert await other.jobs() == ()
        with pytest.raises(NotFound):
            await other.job("web")
        made = await other.submit(service(count=2, namespace="other"))
        assert (made.outcome, made.namespace) == ("created", "other")
        await other.wait(made)
        [copy] = home.copies()
        assert len(await other.allocations()) == 2
        with pytest.raises(NotFound):
            await other.allocation(copy.id)
        await other.stop("web", purge=True)
        await home.until(lambda: "other/web" not in home.tables.jobs)
    assert [one.name for one in await home.client.jobs()] == ["web"]
    assert len(await home.client.allocations()) == 1


async def test_a_request_is_about_its_own_namespace(home: Cluster) -> None:
    """A job that names another namespace than the request is refused."""
    operator = await home.operator()
    with pytest.raises(InvalidJob, match="namespace"):
        await operator.call(
            Request(operation="job.submit", body={"namespace": "one", "job": to_json(service(namespace="two"))})
        )


async def test_a_plan_changes_nothing(home: Cluster) -> None:
    """What a submit would do is told, and not done."""
    await home.running("a")
    plan = await home.client.plan(service(count=6))
    assert (plan.outcome, plan.groups[0].place, plan.groups[0].unplaced) == ("created", 4, 2)
    assert await home.client.jobs() == ()
    await home.client.wait(await home.client.submit(service(count=2)))
    plan = await home.client.plan(service(count=3, command="other"))
    assert (plan.outcome, plan.groups[0].update + plan.groups[0].place > 0) == ("updated", True)
    assert len(home.copies()) == 2
    explained = await home.client.explain("web")
    assert explained.groups[0].nodes[0].node == "a"


async def test_blocked_copies_wake_when_a_node_joins(home: Cluster) -> None:
    """A job that has no room says why, and is placed when there is some."""
    submission = await home.client.submit(service(count=2))
    await home.until(lambda: home.tables.evaluations_of("default/web") and not home.copies())
    await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))
    assert (await home.client.job("web")).blocked[0].wanted == 2
    await home.running("a")
    assert (await home.client.wait(submission)).status == "healthy"


async def test_blocked_copies_wake_when_room_is_freed(home: Cluster) -> None:
    """What another job gives back goes to the one that waits."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service("old", count=4)))
    waiting = await home.client.submit(service("new"))
    await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))
    await home.client.scale("old", 3)
    assert (await home.client.wait(waiting)).status == "healthy"
    assert len(home.copies("new")) == 1


async def test_the_more_urgent_job_is_looked_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that comes back goes to the job with the higher priority, as far as one worker looks at both."""
    monkeypatch.setattr(plane, "WORKERS", 1)
    async with cluster() as home:
        await _urgent(home)


async def _urgent(home: Cluster) -> None:
    await home.client.submit(service("low", count=4, priority=10))
    await home.client.submit(service("high", count=4, priority=90))
    await home.until(lambda: sum(e.status == "blocked" for e in home.tables.evaluations.values()) == 2)
    await home.running("a")
    await home.until_copies("high", 4)
    assert home.copies("low") == []


async def test_ports_are_not_given_twice(home: Cluster) -> None:
    """Copies on one node have ports of their own, and a static one is only free once."""
    await home.running("a")
    await home.client.wait(await home.client.submit(service("dynamic", count=3, ports={"http": "dynamic"}, cpu=100)))
    ports = [port.host for one in home.copies("dynamic") for port in one.ports]
    assert len(set(ports)) == 3
    await home.client.submit(service("static", count=2, ports={"http": 8080}, cpu=100))
    await home.until_copies("static", 1)
    await home.until(lambda: any(e.status == "blocked" for e in home.tables.evaluations.values()))


class Slow(Scheduler):
    """Wait in the middle of a look until the test lets it go on."""

    name = "slow"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def schedule(self, evaluation: Evaluation, snapshot: Snapshot, changes: Changes, /) -> Plan:
        """Wait, and then plan with what was there before."""
        self.begun.set()
        assert self.go_on.wait(10.0)
        return super().schedule(evaluation, snapshot, changes)


async def test_room_that_comes_during_a_look_is_not_missed() -> None:
    """A plan that was made before a node joined does not leave its job blocked."""
    slow = Slow()
    async with cluster(schedulers=[slow]) as home:
        submission = await home.client.submit(service(scheduler="slow"))
        await anyio.to_thread.run_sync(slow.begun.wait, 10.0)
        await home.running("a")
        slow.go_on.set()
        assert (await home.client.wait(submission)).status == "healthy"
