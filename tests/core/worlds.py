"""Small fleets, jobs and evaluations for the tests of the scheduler's parts, and strategies that draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from attrs import frozen
from hypothesis import strategies as st

from khonsu.core.arrays import FloatArray
from khonsu.core.ask import Ask, make_ask
from khonsu.core.changes import Changes, Place
from khonsu.core.conditions import Affinity, Constraint, Spread
from khonsu.core.fleet import Fleet
from khonsu.core.fleet_state import FleetState
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import Job
from khonsu.core.plan import Snapshot
from khonsu.core.records import (
    Allocation,
    DriverInfo,
    Evaluation,
    JobRecord,
    Node,
    NodeResources,
    PortAssignment,
    Time,
)
from khonsu.core.revision import Revision
from khonsu.core.states import Eligibility, JobStatus, NodeStatus
from khonsu.core.task import Resources
from khonsu.core.units import Millis

MIB = 2**20
REVISION = Revision(1, 7)
DEMAND: Mapping[str, int] = {"cpu": 1000, "memory": 100 * MIB, "disk": 10 * MIB}


def node(number: int, **fields: Any) -> Node:
    """Return a node with 4 cores, 400 MiB of memory and 1000 MiB of disk, ready, with the driver `binary`."""
    resources = NodeResources(
        cpu_millis=fields.pop("cpu", 4000),
        memory_bytes=fields.pop("memory", 400 * MIB),
        disk_bytes=fields.pop("disk", 1000 * MIB),
    )
    values: dict[str, Any] = {
        "id": NodeId(f"id-{number}"),
        "name": f"node-{number}",
        "labels": {},
        "attributes": {"os": "linux"},
        "resources": resources,
        "drivers": (DriverInfo(name="binary"),),
        "joined_at": Time(0.0),
        "status_at": Time(0.0),
    }
    return Node(**{**values, **fields})


def state_of(*nodes: Node, **options: Any) -> FleetState:
    """Return a fleet of these nodes."""
    state = FleetState(**options)
    for each in nodes:
        state.put_node(each)
    return state


def allocation(number: int, on: Node, *, job: str = "web", ports: Sequence[int] = (), **fields: Any) -> Allocation:
    """Return a live copy of the group `main` of a job."""
    values: dict[str, Any] = {
        "id": AllocationId(f"allocation-{number}"),
        "namespace": "default",
        "job": job,
        "version": 1,
        "group": "main",
        "slot": number,
        "node_id": on.id,
        "node": on.name,
        "ports": tuple(PortAssignment(name=f"p{port}", host=port, task=port) for port in ports),
        "evaluation": EvaluationId("evaluation"),
        "created_at": Time(0.0),
        "changed_at": Time(0.0),
    }
    return Allocation(**{**values, **fields})


def job_of(name: str = "web", *, count: int = 3, demand: Mapping[str, int] = DEMAND, **fields: Any) -> Job:
    """Return a job of one group whose copies take 1 core, 100 MiB of memory and 10 MiB of disk."""
    resources = Resources(cpu=Millis(demand["cpu"]), memory=demand["memory"])
    return Job.single(
        name, {"command": "true"}, driver="binary", count=count, resources=resources, disk=demand["disk"], **fields
    )


def ask_of(job: Job, **fields: Any) -> Ask:
    """Return the ask for all copies of the first group of a job."""
    return make_ask(job, job.groups[0], tuple(range(job.groups[0].count)), **fields)


def evaluation_of(job: Job) -> Evaluation:
    """Return an evaluation of a job."""
    return Evaluation(
        id=EvaluationId("evaluation"), job=f"default/{job.name}", priority=50, trigger="submit", created_at=Time(0.0)
    )


def snapshot_of(job: Job, state: FleetState, allocations: Sequence[Allocation] = ()) -> Snapshot:
    """Return the snapshot that a job is looked at with."""
    record = JobRecord(
        key=f"default/{job.name}",
        namespace="default",
        name=job.name,
        type=job.type,
        version=1,
        created_at=Time(0.0),
        submitted_at=Time(0.0),
    )
    return Snapshot(
        revision=REVISION,
        job=record,
        specs={1: job},
        allocations=tuple(allocations),
        nodes=state.nodes,
        fleet=state.snapshot(REVISION, job=record.key),
    )


def changes_of(job: Job, places: Sequence[Place] | None = None, **fields: Any) -> Changes:
    """Return changes that want all copies of a job, or the given ones."""
    every = [Place(group=group.name, slot=slot) for group in job.groups for slot in range(group.count)]
    return Changes(version=1, place=tuple(every if places is None else places), status=JobStatus.PENDING, **fields)


@frozen(eq=False)
class World:
    """A fleet, and what is to be placed on it."""

    state: FleetState
    ask: Ask

    @property
    def fleet(self) -> Fleet:
        """Return the fleet with the job's copies."""
        return self.state.snapshot(REVISION, job=self.ask.job_key)


RACKS = ("a", "b", "c")
SMALL = st.integers(0, 3)


@st.composite
def nodes(draw: st.DrawFn, number: int) -> Node:
    """Draw a node; few different ones, so that many are equal."""
    labels = {"rack": draw(st.sampled_from(RACKS))} if draw(SMALL) else {}
    if draw(st.booleans()):
        labels["disk"] = draw(st.sampled_from(["ssd", "hdd"]))
    return node(
        number,
        cpu=draw(st.sampled_from([2000, 4000, 8000])),
        memory=draw(st.sampled_from([300, 1000])) * MIB,
        labels=labels,
        status=NodeStatus.READY if draw(st.integers(0, 9)) else NodeStatus.DOWN,
        eligibility=Eligibility.ELIGIBLE if draw(st.integers(0, 9)) else Eligibility.DRAINING,
    )


@st.composite
def worlds(draw: st.DrawFn, *, spreads: bool = False, distinct: bool = False) -> World:
    """Draw a fleet with ties, caps, masks, ranks, copies and penalties, and a job for it."""
    state = FleetState(seed=draw(SMALL))
    count = draw(st.integers(1, 14))
    every = [draw(nodes(number)) for number in range(count)]
    for each in every:
        state.put_node(each)
    used = st.sampled_from([0, 0, 500, 1000])
    for number, each in enumerate(every):
        state.add(allocation(number, each, job="other"), {"cpu": draw(used), "memory": 0, "disk": 0})
    constraints = [Constraint("label.disk", "=", "ssd")] if not draw(SMALL) else []
    if distinct:
        constraints.append(Constraint(draw(st.sampled_from(["label.rack", "label.disk"])), "distinct"))
    wishes = []
    if spreads:
        wishes.append(Spread("label.rack", weight=draw(st.sampled_from([30, 100])), targets=draw(_targets)))
        if draw(st.booleans()):
            wishes.append(Spread("label.disk", weight=50))
    job = job_of(
        count=draw(st.integers(1, 30)),
        demand={"cpu": draw(st.sampled_from([1, 100, 250, 700])), "memory": 3 * MIB, "disk": MIB},
        constraints=constraints,
        max_per_node=draw(st.sampled_from([None, None, 1, 2, 3])),
        affinities=[Affinity(Constraint("label.disk", "=", "hdd"), draw(st.sampled_from([-50, 50])))]
        if draw(st.booleans())
        else [],
        spreads=wishes,
        ports={"http": 8080} if not draw(st.integers(0, 7)) else {},
    )
    for number in range(draw(SMALL)):
        copy = allocation(number, draw(st.sampled_from(every)), slot=number)
        state.add(copy, job.groups[0].demand())
    avoid = [each.id for each in every if not draw(st.integers(0, 5))]
    return World(state, ask_of(job, avoid=tuple(avoid)))


_targets = st.sampled_from([{}, {"a": 60, "b": 40}, {"a": 50}, {"c": 100}])


def column(*values: float) -> FloatArray:
    """Return a column of scores."""
    return np.array(values, np.float64)


SPREAD = Spread("label.rack")
