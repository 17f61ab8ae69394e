"""Reconciliation under anything that may happen: what always holds, and where it comes to rest."""

from __future__ import annotations

from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from khonsu.core.changes import Changes
from khonsu.core.ids import AllocationId
from khonsu.core.job import Group, Job
from khonsu.core.policies import Disconnect, Reschedule, Update
from khonsu.core.records import Allocation, JobRecord
from khonsu.core.slots import View
from khonsu.core.states import AllocationStatus, Desired, Eligibility, JobStatus, JobType, NodeStatus
from tests.core.rules_model import Model, make_group, make_job, make_node
from tests.effort import examples

A = AllocationStatus
COUNT_MAX = 4


@st.composite
def groups(draw: st.DrawFn, job_type: str, name: str = "main") -> Group:
    """Draw a group with policies of all kinds."""
    everywhere = JobType(job_type).everywhere
    return make_group(
        name,
        work=draw(st.integers(1, 3)),
        count=1 if everywhere else draw(st.integers(0, COUNT_MAX)),
        exclusive=draw(st.booleans()),
        ports=draw(st.sampled_from([{}, {"http": 8080}])),
        update=Update(
            max_parallel=draw(st.integers(1, 3)),
            start_first=draw(st.sampled_from(["auto", True, False])),
            auto_revert=draw(st.booleans()),
            canary=draw(st.integers(0, 2)),
        ),
        disconnect=Disconnect(
            replace_after=draw(st.sampled_from([0, 20])),
            stop_after=draw(st.sampled_from([None, None, 30])),
            keep=draw(st.sampled_from(["replacement", "original"])),
        ),
        reschedule=draw(st.sampled_from([None, None, Reschedule(attempts=2, delay=1)])),
    )


def jobs(job_type: str) -> st.SearchStrategy[Job]:
    """Draw a job of one group or two."""
    one = groups(job_type).map(lambda main: make_job(job_type, main))
    two = st.tuples(groups(job_type), groups(job_type, "side")).map(lambda both: make_job(job_type, *both))
    return st.one_of(one, one, two)


class Cluster(RuleBasedStateMachine):
    """A job lives through everything that users, nodes and networks do to it."""

    job_types: tuple[str, ...] = ("service",)

    def __init__(self) -> None:
        """Start without a job."""
        super().__init__()
        self.model: Model

    @initialize(data=st.data(), nodes=st.integers(1, 4), room=st.sampled_from([3, 6, 100]))
    def begin(self, data: st.DataObject, nodes: int, room: int) -> None:
        """Submit a job to a small cluster."""
        self.job_type = data.draw(st.sampled_from(self.job_types))
        spec = data.draw(jobs(self.job_type))
        made = [make_node(number) for number in range(nodes)]
        self.model = Model(spec=spec, nodes={node.id: node for node in made}, room=room)
        self.joined = nodes

    # What happens.

    @rule()
    def look(self) -> None:
        """The control plane looks at the job."""
        look_and_check(self.model)

    @rule(data=st.data(), moves=st.integers(1, 6))
    def agents_move(self, data: st.DataObject, moves: int) -> None:
        """Agents get on with their copies."""
        for _ in range(moves):
            reachable = sorted(one.id for one in self.model.reachable())
            if reachable:
                self.model.act(data.draw(st.sampled_from(reachable)))

    @rule(seconds=st.sampled_from([1.0, 6.0, 15.0, 60.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.model.advance(seconds)

    @rule(data=st.data())
    def a_copy_fails(self, data: st.DataObject) -> None:
        """A copy fails."""
        if reachable := sorted(one.id for one in self.model.reachable()):
            self.model.fail(data.draw(st.sampled_from(reachable)))

    @rule(data=st.data(), broken=st.booleans())
    def submit(self, data: st.DataObject, broken: bool) -> None:
        """A new version is submitted, broken or not."""
        self.model.submit(data.draw(jobs(self.job_type)))
        if broken:
            self.model.broken_versions.add(self.model.record.version)

    @rule()
    def stop(self) -> None:
        """The job is stopped."""
        self.model.stop()

    @rule(data=st.data())
    def stop_allocation(self, data: st.DataObject) -> None:
        """An operator stops a copy."""
        if live := sorted(one.id for one in self.model.live()):
            self.model.stop_allocation(data.draw(st.sampled_from(live)))

    @rule(data=st.data(), killed=st.booleans())
    def lose_a_node(self, data: st.DataObject, killed: bool) -> None:
        """A node is cut off, or dies."""
        if self.model.nodes:
            self.model.lose(data.draw(st.sampled_from(sorted(self.model.nodes))), killed=killed)

    @rule(data=st.data())
    @precondition(lambda self: self.model.cut_off)
    def a_node_returns(self, data: st.DataObject) -> None:
        """A node is heard of again."""
        self.model.bring_back(data.draw(st.sampled_from(sorted(self.model.cut_off))))

    @rule(data=st.data())
    def remove_a_node(self, data: st.DataObject) -> None:
        """An operator removes a node that is down, which is gone for good."""
        down = sorted(key for key, node in self.model.nodes.items() if node.status is NodeStatus.DOWN)
        if down:
            key = data.draw(st.sampled_from(down))
            self.model.remove(key)

    @rule(data=st.data(), deadline=st.sampled_from([None, 5.0, 100.0]))
    def drain_a_node(self, data: st.DataObject, deadline: float | None) -> None:
        """A node is drained."""
        if self.model.nodes:
            key = data.draw(st.sampled_from(sorted(self.model.nodes)))
            self.model.drain(key, None if deadline is None else self.model.now + deadline)

    @rule()
    def a_node_joins(self) -> None:
        """A machine is added."""
        self.joined += 1
        self.model.join(make_node(self.joined))

    # What always holds.

    @invariant()
    def an_exclusive_slot_runs_once(self) -> None:
        """No exclusive slot ever has two instances, whatever is known of them."""
        if hasattr(self, "model"):
            check_instances(self.model)

    def teardown(self) -> None:
        """After the last fault the job becomes what its user wants, and stays so."""
        if hasattr(self, "model"):
            end_of_faults(self.model)


def end_of_faults(model: Model) -> None:
    """Let everything work again, and check that the job becomes what its user wants, and stays so."""
    model.room = 10**9
    model.broken_versions.clear()
    for key in sorted(model.cut_off):
        model.bring_back(key)
    for key in model.nodes:
        model.undrain(key)
    if not model.nodes:
        model.join(make_node(99))
    assert model.settle(), "it does not come to rest"
    again = model.look()
    assert again.empty
    assert again.wake_at is None
    check_rest(model)


def look_and_check(model: Model) -> None:
    """Let the control plane look at the job once, and check what it does."""
    record, known = model.record, dict(model.known)
    with patch.object(View, "blank", lambda *_: ()):
        slot_by_slot = model.look()
    assert slot_by_slot == model.look(), "slots that never had a copy are filled otherwise together than one by one"
    changes = model.step()
    check_changes(model, record, known, changes)
    if changes.revert_to is None:
        assert model.look().stop == (), "a second look at the same state stops more"


def check_instances(model: Model) -> None:
    """Check that no exclusive slot has two instances, whatever is known of them."""
    for (name, slot), count in model.instances().items():
        found = [group for spec in model.specs.values() if (group := spec.group(name)) is not None]
        if all(group.exclusive for group in found):
            assert count <= 1, f"{name}/{slot} runs {count} times"


def check_changes(model: Model, record: JobRecord, known: dict[Any, Allocation], changes: Changes) -> None:
    """Check one look against the state that it was made from."""
    spec = model.specs[record.version]
    places = [(place.group, place.slot) for place in changes.place]
    assert len(places) == len(set(places)), "a slot is placed twice at once"
    stops = [stop.allocation for stop in changes.stop]
    assert len(stops) == len(set(stops)), "a copy is stopped twice"
    finished = record.status in (JobStatus.COMPLETE, JobStatus.FAILED) and not spec.type.keeps_running
    # A node that has not run it opens such a job again.
    finished = finished and (spec.type, record.status) != (JobType.SYSBATCH, JobStatus.COMPLETE)
    assert not (places and (record.stopped or finished)), "something starts that nobody wants"
    for place in changes.place:
        group = spec.group(place.group)
        assert group is not None
        assert spec.type.everywhere or place.slot < group.count, "more copies than wanted"
        awaited = [
            one
            for one in known.values()
            if (one.group, one.slot, one.run, one.status) == (place.group, place.slot, record.run, A.UNKNOWN)
            and one.desired is Desired.RUN
            and one.node_id in model.nodes
            and model.nodes[one.node_id].schedulable
        ]
        assert spec.type.everywhere or not awaited, "a copy is replaced just before its agent speaks of it"
        done = [
            one
            for one in known.values()
            if (one.group, one.slot, one.run, one.status) == (place.group, place.slot, record.run, A.COMPLETE)
        ]
        assert spec.type.keeps_running or spec.type.everywhere or not done, "finished work is done again"
    for key in stops:
        assert is_surplus(model, record, known[key], known, changes), f"{key} is stopped although it is wanted"
    for slot, copies in model.to_run().items():
        here = [one for one in copies if one.status is not A.UNKNOWN]
        assert len(here) <= 2, f"{slot} has {len(here)} copies"


def is_surplus(
    model: Model, record: JobRecord, one: Allocation, known: dict[Any, Allocation], changes: Changes
) -> bool:
    """Return whether a stop has a reason that a user would accept."""
    spec = model.specs[record.version]
    group = spec.group(one.group)
    finished = changes.status in (JobStatus.COMPLETE, JobStatus.FAILED) and not spec.type.keeps_running
    if record.stopped or finished or group is None or one.run != record.run:
        return True
    if one.version != changes.version and one.id not in changes.adopt:
        return True
    node = model.nodes.get(one.node_id)
    if node is None or node.eligibility is Eligibility.DRAINING:
        return True
    if group.exclusive and one.status is A.UNKNOWN and node.status is NodeStatus.DOWN:
        return model.instances().get((one.group, one.slot), 0) == 0
    if not group.count or (not spec.type.everywhere and one.slot >= group.count):
        return True
    if (
        changes.rollout is not None
        and changes.rollout.status == "failed"
        and changes.rollout.version == changes.version
    ):
        return one.health is not True
    others = [
        other
        for other in known.values()
        if (other.group, other.slot, other.run) == (one.group, one.slot, one.run) and other.id != one.id
    ]
    stays = [other for other in others if other.live and other.desired is Desired.RUN]
    stays = [other for other in stays if other.id not in {stop.allocation for stop in changes.stop}]
    return bool(stays) or any(other.status is A.COMPLETE for other in others)


def check_rest(model: Model) -> None:
    """Check that a job at rest is what its user wants."""
    record, spec = model.record, model.specs[model.record.version]
    slots = model.to_run()
    if record.stopped or (not spec.type.keeps_running and record.status in (JobStatus.COMPLETE, JobStatus.FAILED)):
        assert not slots
        return
    if record.status is JobStatus.FAILED:
        assert all(len(copies) == 1 for copies in slots.values())
        return
    assert spec.type.keeps_running, f"a {spec.type} job rests as {record.status}"
    there: list[tuple[str, int | str]] = [
        (one.group, one.node_id if spec.type.everywhere else one.slot) for copies in slots.values() for one in copies
    ]
    wanted: list[tuple[str, int | str]] = [
        (group.name, place)
        for group in spec.groups
        for place in (model.nodes if spec.type.everywhere else range(group.count))
    ]
    assert sorted(there) == sorted(wanted)
    assert {one.version for copies in slots.values() for one in copies} <= {record.version}
    if wanted:
        assert record.status is JobStatus.RUNNING
        assert record.stable_version == record.version


class Services(Cluster):
    job_types = ("service",)


class Batches(Cluster):
    job_types = ("batch",)


class Everywhere(Cluster):
    job_types = ("system", "sysbatch")


PROFILE = settings(examples(15), stateful_step_count=40, suppress_health_check=list(HealthCheck))

TestServices = Services.TestCase
TestBatches = Batches.TestCase
TestEverywhere = Everywhere.TestCase
TestServices.settings = PROFILE
TestBatches.settings = PROFILE
TestEverywhere.settings = PROFILE


# The same cluster, walked by chance: fewer surprises at a time, and far longer stories.

TICKS = 100
WALKS = 50


def draw_group(random: Random, job_type: str, *, exclusive: bool) -> Group:
    """Return a group with policies of all kinds."""
    everywhere = JobType(job_type).everywhere
    return make_group(
        work=random.randint(1, 4),
        count=1 if everywhere else random.randint(0, COUNT_MAX),
        exclusive=exclusive,
        ports=random.choice([{}, {"http": 8080}]),
        update=Update(
            max_parallel=random.randint(1, 3),
            start_first=random.choice(["auto", True, False]),
            auto_revert=random.random() < 0.8,
            canary=random.choice([0, 0, 0, 1, 2]),
        ),
        disconnect=Disconnect(
            replace_after=random.choice([0, 0, 20]),
            stop_after=random.choice([None, None, 15]),
            keep=random.choice(["replacement", "original"]),
        ),
        reschedule=random.choice([None, None, Reschedule(attempts=2, delay=1)]),
    )


def disturb(model: Model, random: Random, job_type: str, *, exclusive: bool) -> None:
    """Let at most one thing happen."""
    nodes = sorted(model.nodes)
    live = sorted(one.id for one in model.live())
    reachable = sorted(one.id for one in model.reachable())
    match random.choices(range(10), weights=[70, 5, 1, 3, 6, 6, 1, 3, 3, 4])[0]:
        case 1:
            model.submit(make_job(job_type, draw_group(random, job_type, exclusive=exclusive)))
            if random.random() < 0.3:
                model.broken_versions.add(model.record.version)
        case 2:
            model.stop()
        case 3 if live:
            model.stop_allocation(AllocationId(random.choice(live)))
        case 4 if nodes:
            model.lose(random.choice(nodes), killed=random.random() < 0.3)
        case 5 if model.cut_off:
            model.bring_back(random.choice(sorted(model.cut_off)))
        case 6 if nodes:
            model.remove(random.choice(nodes))
        case 7 if nodes:
            model.drain(random.choice(nodes), random.choice([None, model.now + 20.0]))
        case 8:
            for key in nodes:
                model.undrain(key)
        case 9 if reachable:
            model.fail(random.choice(reachable))


@pytest.mark.parametrize("job_type", ["service", "batch", "system", "sysbatch"])
@given(seed=st.integers(0, 2**32))
@examples(WALKS)
def test_a_long_story_breaks_no_promise(job_type: str, seed: int) -> None:
    """A job that is disturbed all the time keeps what is promised, and recovers when it is left alone."""
    random = Random(seed)
    exclusive = random.random() < 0.5
    model = Model(
        spec=make_job(job_type, draw_group(random, job_type, exclusive=exclusive)),
        nodes={node.id: node for node in map(make_node, range(random.randint(2, 4)))},
        room=random.choice([3, 5, 100, 100]),
    )
    for _ in range(TICKS):
        disturb(model, random, job_type, exclusive=exclusive)
        if random.random() < 0.8:
            look_and_check(model)
        for one in sorted(model.reachable(), key=lambda each: each.id):
            if random.random() < 0.6:
                model.act(one.id)
        model.advance(random.choice([1.0, 1.0, 2.0, 5.0]))
        check_instances(model)
    end_of_faults(model)
