"""A small cluster for the rules: it applies what `reconcile` says, and keeps apart what is known and what is true.

`known` are the records; `running` is what really runs on the machines, silent ones included. Agents make one move at a
time, when a test lets them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import define, evolve, field

from khonsu.core.changes import Changes, Place
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import Group, Job
from khonsu.core.leases import GRACE_SECONDS, TTL_SECONDS, LeaseBook
from khonsu.core.protocol import AllocationReport
from khonsu.core.reconcile import reconcile
from khonsu.core.records import Allocation, JobRecord, Node, NodeResources, TaskStatus, Time
from khonsu.core.reports import apply_report
from khonsu.core.states import AllocationStatus, Desired, Eligibility, JobStatus, JobType, NodeStatus, TaskState
from khonsu.core.status import current_allocations
from khonsu.core.task import Task

A = AllocationStatus
HEALTHY_SECONDS = 5.0


def make_group(name: str = "main", **fields: Any) -> Group:
    """Return a group of one task that sleeps."""
    revision = fields.pop("work", 1)
    return Group(name, tasks=[Task("main", {"command": "sleep", "args": [str(revision)]}, driver="binary")], **fields)


def make_job(job_type: str = "service", *groups: Group, **fields: Any) -> Job:
    """Return a job of these groups, or of one that is made of the fields."""
    return Job("web", groups=groups or (make_group(**fields),), type=JobType(job_type))


def make_node(number: int, **fields: Any) -> Node:
    """Return a node that is ready."""
    values: dict[str, Any] = {
        "id": NodeId(f"n{number}"),
        "name": f"node-{number}",
        "resources": NodeResources(cpu_millis=4000, memory_bytes=2**32, disk_bytes=2**40),
        "joined_at": Time(float(number)),
        "status_at": Time(0.0),
    }
    return Node(**{**values, **fields})


def make_record(spec: Job, **fields: Any) -> JobRecord:
    """Return the record of a job that was just submitted."""
    values: dict[str, Any] = {
        "key": "default/web",
        "namespace": "default",
        "name": "web",
        "type": spec.type,
        "version": 1,
        "created_at": Time(0.0),
        "submitted_at": Time(0.0),
    }
    return JobRecord(**{**values, **fields})


def make_allocation(number: int, on: int = 0, **fields: Any) -> Allocation:
    """Return a copy that runs and is healthy, in the slot of its number, on a node by its number."""
    values: dict[str, Any] = {
        "id": AllocationId(f"a{number:04}"),
        "namespace": "default",
        "job": "web",
        "version": 1,
        "group": "main",
        "slot": number,
        "node_id": NodeId(f"n{on}"),
        "node": f"node-{on}",
        "status": A.RUNNING,
        "health": True,
        "healthy_at": Time(0.0),
        "evaluation": EvaluationId("e"),
        "created_at": Time(0.0),
        "changed_at": Time(0.0),
    }
    return Allocation(**{**values, **fields})


@define
class Process:
    """What really runs for an allocation on its machine."""

    allocation: AllocationId
    began_at: float
    ended: A | None = None


@define
class Model:
    """A cluster with one job."""

    spec: Job
    nodes: dict[NodeId, Node]
    now: float = 1000.0
    record: JobRecord = field(init=False)
    specs: dict[int, Job] = field(init=False)
    origins: dict[int, str] = field(init=False)
    known: dict[AllocationId, Allocation] = field(factory=dict)
    running: dict[AllocationId, Process] = field(factory=dict)
    cut_off: set[NodeId] = field(factory=set)
    """Nodes that cannot be heard; the control plane learns it when the lease is over."""
    heard: dict[NodeId, float] = field(factory=dict)
    book: LeaseBook = field(init=False)
    broken_versions: set[int] = field(factory=set)
    """Versions whose copies fail at once."""
    room: int = 10**9
    """So many live copies fit into the cluster."""
    placed: list[Place] = field(factory=list)
    _number: int = 0

    def __attrs_post_init__(self) -> None:
        """Submit the job and hear of every node."""
        self.record = make_record(self.spec, created_at=Time(self.now), submitted_at=Time(self.now))
        self.specs = {1: self.spec}
        self.origins = {1: "submit"}
        self.heard = dict.fromkeys(self.nodes, self.now)
        self.book = LeaseBook(self.now, ready=self.nodes, tick_seconds=1e9)

    # What users and operators do.

    def submit(self, spec: Job, origin: str = "submit") -> None:
        """Make a new version of the job; of a batch job or a stopped one also a new run."""
        again = self.record.stopped or not spec.type.keeps_running
        number = max(self.specs) + 1
        self.specs[number], self.origins[number] = spec, origin
        self.record = evolve(
            self.record,
            version=number,
            type=spec.type,
            stopped=False,
            run=self.record.run + again,
            status=JobStatus.PENDING,
            message="",
        )

    def stop(self) -> None:
        """Stop the job."""
        self.record = evolve(self.record, stopped=True, status=JobStatus.STOPPED)

    def stop_allocation(self, key: AllocationId) -> None:
        """Stop one copy."""
        self.known[key] = evolve(self.known[key], desired=Desired.STOP)

    def drain(self, key: NodeId, deadline: float | None = None) -> None:
        """Drain a node."""
        self.nodes[key] = evolve(
            self.nodes[key],
            eligibility=Eligibility.DRAINING,
            drain_deadline_at=None if deadline is None else Time(deadline),
        )

    def undrain(self, key: NodeId) -> None:
        """Give a node work again."""
        self.nodes[key] = evolve(self.nodes[key], eligibility=Eligibility.ELIGIBLE, drain_deadline_at=None)

    def join(self, node: Node) -> None:
        """Add a machine."""
        self.nodes[node.id] = evolve(node, joined_at=Time(self.now), status_at=Time(self.now))
        self.heard[node.id] = self.now
        self.book.renew(node.id, self.now)

    def remove(self, key: NodeId) -> None:
        """Remove a node that is down."""
        if self.nodes[key].status is NodeStatus.DOWN:
            self.book.end(key)
            del self.nodes[key]
            self.cut_off.discard(key)

    # Time and the network.

    def advance(self, seconds: float) -> None:
        """Let time pass: leases run out, and the helpers of exclusive copies act on it."""
        for _ in range(max(1, round(seconds))):
            self.now += seconds / max(1, round(seconds))
            self._renew()
            self._helpers()

    def _renew(self) -> None:
        for key in self.nodes:
            if key not in self.cut_off:
                self.heard[key] = self.now
                self.book.renew(key, self.now)
        for key in self.book.expire(self.now):
            node = self.nodes.get(key)
            if node is not None:
                self.nodes[key] = evolve(node, status=NodeStatus.DOWN, status_at=Time(self.now))
                for one in self.live():
                    if one.node_id == key:
                        self.known[one.id] = evolve(one, status=A.UNKNOWN, changed_at=Time(self.now))

    def _helpers(self) -> None:
        """End the exclusive copies whose lease is over; the lease counts from the last call."""
        for process in self.running.values():
            one = self.known[process.allocation]
            group = self.specs[one.version].group(one.group)
            away = self.now - self.heard[one.node_id]
            exclusive = group is not None and group.exclusive
            if exclusive and process.ended is None and away > TTL_SECONDS + group.kill_timeout_seconds:  # type: ignore[union-attr]
                process.ended = A.STOPPED

    def lose(self, key: NodeId, *, killed: bool = False) -> None:
        """Cut a node off; `killed` ends what runs there."""
        self.cut_off.add(key)
        for process in self.running.values():
            if killed and self.known[process.allocation].node_id == key and process.ended is None:
                process.ended = A.FAILED

    def bring_back(self, key: NodeId) -> None:
        """Let a node be heard again."""
        self.cut_off.discard(key)
        if key in self.nodes and self.nodes[key].status is NodeStatus.DOWN:
            self.nodes[key] = evolve(self.nodes[key], status=NodeStatus.READY, status_at=Time(self.now))
            self.heard[key] = self.now
            self.book.renew(key, self.now)

    # Agents.

    def live(self) -> list[Allocation]:
        """Return the live copies, as far as is known."""
        return [one for one in self.known.values() if one.live]

    def reachable(self) -> list[Allocation]:
        """Return the live copies on machines that can be heard."""
        up = {key for key, node in self.nodes.items() if node.status is NodeStatus.READY and key not in self.cut_off}
        return [one for one in self.live() if one.node_id in up]

    def act(self, key: AllocationId) -> None:
        """Let an agent make the next move of a copy and report it."""
        one = self.known[key]
        process = self.running.get(key)
        if process is not None and process.ended is not None:
            self.report(one, process.ended)
        elif one.desired is Desired.STOP:
            if process is not None:
                process.ended = A.STOPPED
            self.report(one, A.STOPPED)
        elif process is None:
            self.running[key] = Process(key, self.now)
            self.report(one, A.RUNNING)
        elif one.version in self.broken_versions:
            self.fail(key)
        elif not self.record.type.keeps_running:
            process.ended = A.COMPLETE
            self.report(one, A.COMPLETE)
        else:
            healthy = self.now - process.began_at >= HEALTHY_SECONDS
            self.report(one, A.RUNNING, health=True if healthy else None)

    def fail(self, key: AllocationId) -> None:
        """Let a copy fail and its agent report it."""
        self.running.setdefault(key, Process(key, self.now)).ended = A.FAILED
        self.report(self.known[key], A.FAILED)

    def report(self, one: Allocation, status: A, *, health: bool | None = None) -> None:
        """Take a report."""
        state = {A.RUNNING: TaskState.RUNNING, A.COMPLETE: TaskState.COMPLETE, A.FAILED: TaskState.FAILED}
        task = TaskStatus(
            name="main", status=state.get(status, TaskState.STOPPED), exit_code=1 if status is A.FAILED else 0
        )
        report = AllocationReport(id=one.id, generation=one.generation, status=status, health=health, tasks=(task,))
        self.known[one.id] = apply_report(one, report, Time(self.now)) or self.known[one.id]

    # The control plane.

    def look(self, no_room: AbstractSet[tuple[str, int]] = frozenset()) -> Changes:
        """Return what the rules say."""
        return reconcile(
            self.record,
            self.specs,
            list(self.known.values()),
            self.nodes,
            self.now,
            silence=self.book.silence(self.now),
            origin=self.origins[self.record.version],
            no_room=no_room,
        )

    def step(self) -> Changes:
        """Look once, and apply it; where there is no room beside an old copy, look again."""
        changes = self.look()
        unplaced = self._without_node(changes.place)
        if crowded := frozenset((one.group, one.slot) for one in unplaced if one.replaces):
            changes = self.look(crowded)
            unplaced = self._without_node(changes.place)
        self.apply(changes, skip=unplaced)
        return changes

    def _without_node(self, places: Iterable[Place]) -> list[Place]:
        full = max(0, self.room - len(self.live()))
        schedulable = any(node.schedulable for node in self.nodes.values())
        return [one for number, one in enumerate(places) if number >= full or not schedulable]

    def apply(self, changes: Changes, skip: Iterable[Place] = ()) -> None:
        """Write what a look found, all but some placements."""
        skipped = list(skip)
        for key in changes.adopt:
            self.known[key] = evolve(self.known[key], version=changes.version)
        for stop in changes.stop:
            self.known[stop.allocation] = evolve(self.known[stop.allocation], desired=Desired.STOP)
        for key in changes.mark_lost:
            self.known[key] = evolve(self.known[key], status=A.LOST, changed_at=Time(self.now))
        generation = self.record.generation + 1
        for place in changes.place:
            if place not in skipped:
                self._place(place, generation)
        self.record = evolve(
            self.record,
            status=changes.status,
            rollout=changes.rollout,
            generation=generation,
            stable_version=changes.version if changes.stable else self.record.stable_version,
            message=changes.message,
        )
        if changes.revert_to is not None:
            self.submit(self.specs[changes.revert_to], "revert")

    def _place(self, place: Place, generation: int) -> None:
        load: defaultdict[NodeId, int] = defaultdict(int)
        for one in self.live():
            load[one.node_id] += 1
        nodes = [node for node in self.nodes.values() if node.schedulable and place.node in (None, node.id)]
        node = min(nodes, key=lambda each: (each.id in place.avoid, load[each.id], each.id))
        self._number += 1
        key = AllocationId(f"a{self._number:04}")
        self.placed.append(place)
        self.known[key] = make_allocation(
            0,
            id=key,
            version=self.record.version,
            run=self.record.run,
            group=place.group,
            slot=place.slot,
            node_id=node.id,
            node=node.name,
            status=A.PENDING,
            health=None,
            healthy_at=None,
            generation=generation,
            previous=place.previous.id if place.previous else None,
            replaces=place.replaces,
            reschedules=place.reschedules,
            created_at=Time(self.now),
            changed_at=Time(self.now),
        )

    # What tests ask.

    def current(self) -> tuple[Allocation, ...]:
        """Return the copy that stands for each slot."""
        return current_allocations(self.record, self.specs[self.record.version], self.known.values())

    def to_run(self) -> dict[tuple[str, int], list[Allocation]]:
        """Return the live copies that are to run, by slot."""
        slots: defaultdict[tuple[str, int], list[Allocation]] = defaultdict(list)
        for one in self.live():
            if one.desired is Desired.RUN:
                slots[one.group, one.slot].append(one)
        return slots

    def instances(self) -> Mapping[tuple[str, int], int]:
        """Return how many instances of each slot really run."""
        counts: defaultdict[tuple[str, int], int] = defaultdict(int)
        for process in self.running.values():
            one = self.known[process.allocation]
            counts[one.group, one.slot] += process.ended is None
        return counts

    def settle(self, rounds: int = 400) -> bool:
        """Let everything work, and return whether the rules come to rest."""
        for _ in range(rounds):
            changes = self.step()
            busy = [one for one in self.reachable() if not self._at_rest(one)]
            if changes.empty and changes.wake_at is None and changes.revert_to is None and not busy:
                return True
            for one in busy:
                self.act(one.id)
            wake = self.now if changes.wake_at is None else changes.wake_at
            self.advance(max(1.0, min(wake - self.now, 700.0)) if changes.empty and not busy else 1.0)
        return False

    def _at_rest(self, one: Allocation) -> bool:
        healthy = one.status is A.RUNNING and one.health is True
        return healthy and one.desired is Desired.RUN and self.record.type.keeps_running


LEASE_OVER_SECONDS = TTL_SECONDS + GRACE_SECONDS + 1.0
