"""The promises that the oracle looks after, each named as in the documentation of what is promised."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from khonsu.core.records import Allocation, JobRecord, JobVersion, Node
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus
from khonsu.testing.simulation.durability import EachCommitIsWhole, FailuresLeaveNoTrace, StaysBounded
from khonsu.testing.simulation.liveness import NothingIsTriedForEver, StaysThere
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle, Process
from khonsu.testing.simulation.reached import ReachesWhatIsWanted
from khonsu.testing.simulation.returning import (
    ActsOnWhatIsWanted,
    DamageIsTold,
    OneSurvives,
    ReturnsToItsTasks,
    TellsHowItEnded,
)
from khonsu.testing.simulation.silence import (
    BusyExpiresNobody,
    DeadIsMarkedDown,
    MassLossStopsReplacing,
    ReturnExpiresNobody,
    StepExpiresNobody,
)

_A = AllocationStatus
_RANK = {_A.PENDING: 0, _A.STARTING: 1, _A.RUNNING: 2, _A.STOPPING: 3, _A.UNKNOWN: 4}
_AFTER_UNKNOWN = (_A.RUNNING, _A.COMPLETE, _A.FAILED, _A.STOPPED, _A.LOST)


class CapacityHolds(Invariant):
    """What is committed to a node is never more than it has."""

    promise: ClassVar[str] = "S1"

    def __init__(self, world: Oracle) -> None:
        """Know no node's allocations."""
        super().__init__(world)
        self._on: defaultdict[str, dict[str, Allocation]] = defaultdict(dict)

    def restored(self, revision: Revision) -> None:
        """Begin anew with what is there."""
        self._on.clear()
        self.committed([(None, one) for one in self.oracle.allocations])

    def committed(self, moves: Moves) -> None:
        """Count again on the nodes that got something."""
        touched: dict[str, None] = {}
        for before, after in moves:
            if isinstance(after, Allocation) and after.live:
                self._on[after.node_id][after.id] = after
                touched[after.node_id] = None
            elif isinstance(gone := after or before, Allocation):
                self._on[gone.node_id].pop(gone.id, None)
        for node_id in touched:
            if (node := self.oracle.nodes.get(node_id)) is not None:
                self._count(node)

    def _count(self, node: Node) -> None:
        used = {"cpu": 0, "memory": 0, "disk": 0}
        ports: dict[int, str] = {}
        for allocation in self._on[node.id].values():
            group = self.oracle.group(allocation)
            used["cpu"] += sum(task.resources.cpu_millis for task in group.tasks)
            used["memory"] += sum(task.resources.memory_bytes for task in group.tasks)
            used["disk"] += group.disk_bytes
            for port in allocation.ports:
                if port.host in ports:
                    self.broken(f"port {port.host} of {node.name} is given to {ports[port.host]} and {allocation.id}")
                ports[port.host] = allocation.id
        has = node.resources
        for name, limit in (("cpu", has.cpu_millis), ("memory", has.memory_bytes), ("disk", has.disk_bytes)):
            if used[name] > limit:
                self.broken(f"{used[name]} of {name} are committed on {node.name}, which has {limit}")


class ExclusiveRunsOnce(Invariant):
    """An exclusive slot runs at most once."""

    promise: ClassVar[str] = "S2"

    def started(self, process: Process) -> None:
        """Look for another one of the slot."""
        if not process.exclusive:
            return
        for other in self.oracle.processes:
            if other.slot == process.slot:
                self.broken(
                    f"exclusive {process.slot} starts on {process.host} as {process.process.key}, "
                    f"and still runs on {other.host} as {other.process.key}"
                )


class StartsOnce(Invariant):
    """An attempt starts once, and each one has a greater epoch than those before it."""

    promise: ClassVar[str] = "S3"

    def __init__(self, world: Oracle) -> None:
        """Know of no start."""
        super().__init__(world)
        self._started: set[str] = set()
        self._epochs: dict[str, int] = {}

    def started(self, process: Process) -> None:
        """Look whether it was started before."""
        key = process.process.key
        if key in self._started:
            self.broken(f"attempt {key} of {process.slot} starts a second time, on {process.host}")
        self._started.add(key)
        of = process.slot if process.exclusive else process.allocation
        last = self._epochs.get(of, -1)
        if process.epoch <= last:
            self.broken(f"{key} of {process.slot} has epoch {process.epoch}, after one with {last}")
        self._epochs[of] = process.epoch


class StatusGoesForward(Invariant):
    """The status of an allocation only goes forward, and an end is final; one that is unknown may return."""

    promise: ClassVar[str] = "S4"

    def committed(self, moves: Moves) -> None:
        """Look at each move."""
        for before, after in moves:
            if isinstance(before, Allocation) and isinstance(after, Allocation):
                if not _forward(before.status, after.status):
                    self.broken(f"{after.job}/{after.slot} ({after.id}) goes from {before.status} to {after.status}")
                if before.node_id != after.node_id or before.generation != after.generation:
                    self.broken(f"{after.id} is moved to another node or generation")


def _forward(before: AllocationStatus, after: AllocationStatus) -> bool:
    if before is after:
        return True
    if before.terminal:
        return False
    if before is _A.UNKNOWN:
        return after in _AFTER_UNKNOWN
    return after.terminal or _RANK[after] > _RANK[before]


class AcknowledgedStays(Invariant):
    """What was acknowledged, and every commit that was answered, survives."""

    promise: ClassVar[str] = "D1"

    def opened(self, revision: Revision) -> None:
        """Look for what was promised."""
        if revision < self.oracle.revision:
            self.broken(f"the store is at {revision}, after {self.oracle.revision} was durable")
        self._look()

    def acknowledged(self, job: str) -> None:
        """Look for the job."""
        self._look()

    def finished(self) -> None:
        """Look for what was promised."""
        self._look()

    def _look(self) -> None:
        for job in sorted(self.oracle.acked.keys() - self.oracle.jobs.keys()):
            self.broken(f"{job} was acknowledged, and is not there")
        for job, (version, stopped) in sorted(self.oracle.asked.items()):
            record = self.oracle.jobs.get(job)
            if record is not None and (record.version, record.stopped) < (version, stopped):
                self.broken(f"version {version} of {job} was acknowledged, and it is {record.version}")


class SubmittedOnce(Invariant):
    """A submission that is repeated with its key is one."""

    promise: ClassVar[str] = "D2"

    def committed(self, moves: Moves) -> None:
        """Count the runs and the versions; those that the control plane made by itself do not count."""
        for before, after in moves:
            if isinstance(after, JobRecord) and after.run > max(1, self.oracle.submitted.get(after.key, 0)):
                self.broken(f"{after.key} is in run {after.run}, and was submitted less often")
            if not isinstance(after, JobVersion) or before is not None:
                continue
            submitted = self.oracle.submitted.get(after.job, 0)
            versions = self.oracle.tables["job_version"].values()
            known = [one for one in versions if isinstance(one, JobVersion) and one.job == after.job]
            if sum(one.failed_version is None for one in known) > submitted:
                self.broken(f"{after.job} has version {after.version}, and was submitted {submitted} times")

    def finished(self) -> None:
        """Look whether something was carried out again, after something else was asked for."""
        if self.oracle.revision.term:
            return  # what a control plane forgot that was put back is carried out again, when it is asked for again
        for job, (_, stopped) in self.oracle.asked.items():
            record = self.oracle.jobs.get(job)
            if record is not None and record.stopped and not stopped:
                self.broken(f"{job} is stopped, and was asked for after that")
        for one in self.oracle.tables["job_version"].values():
            if not isinstance(one, JobVersion) or one.failed_version is not None or one.job not in self.oracle.asked:
                continue
            if one.version > (version := self.oracle.asked[one.job][0]):
                self.broken(f"{one.job} has version {one.version}, and {version} was the last that was asked for")


INVARIANTS: tuple[type[Invariant], ...] = (
    CapacityHolds,
    ExclusiveRunsOnce,
    StartsOnce,
    StatusGoesForward,
    ReturnsToItsTasks,
    TellsHowItEnded,
    ActsOnWhatIsWanted,
    ReturnExpiresNobody,
    MassLossStopsReplacing,
    StepExpiresNobody,
    BusyExpiresNobody,
    DeadIsMarkedDown,
    AcknowledgedStays,
    SubmittedOnce,
    EachCommitIsWhole,
    FailuresLeaveNoTrace,
    StaysBounded,
    NothingIsTriedForEver,
    # At the end the special ones first: what breaks them breaks what comes after them, too.
    DamageIsTold,
    OneSurvives,
    ReachesWhatIsWanted,
    StaysThere,
)
"""All promises that can be seen from outside; the first of several that are broken at once is the one that is told."""
