"""Whether what is wanted is reached: looked at when nothing has gone wrong for a while."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from khonsu.core.job import Group, Job
from khonsu.core.records import JobRecord, Node
from khonsu.core.states import AllocationStatus, JobStatus
from khonsu.testing.simulation.oracle import Invariant, Oracle, Process

REACH_SECONDS: Final = 50.0
"""How long it may take until what is wanted is reached, when nothing goes wrong any more."""
_ENDED: Final[Mapping[bool, JobStatus]] = {False: JobStatus.COMPLETE, True: JobStatus.FAILED}


class ReachesWhatIsWanted(Invariant):
    """After all faults, what was acknowledged runs, once for each copy, or has ended as it should."""

    promise: ClassVar[str] = "L1"

    def finished(self) -> None:
        """Look at each job."""
        for what in unreached(self.oracle):
            self.broken(what)


def unreached(oracle: Oracle) -> list[str]:
    """Return what is not as it is wanted, in words."""
    running: defaultdict[str, list[Process]] = defaultdict(list)
    for one in oracle.processes:
        running[one.process.env["KHONSU_JOB"]].append(one)
    names = {record.name for record in oracle.jobs.values()}
    found = [f"{job} runs on {there[0].host}, and is not there" for job, there in running.items() if job not in names]
    for key in sorted(oracle.acked.keys() & oracle.jobs.keys()):
        if oracle.sights.now() - oracle.acked[key] >= REACH_SECONDS:
            record = oracle.jobs[key]
            found += [f"{key}: {what}" for what in _lacks(oracle, record, running.get(record.name, ()))]
    return found


def _lacks(oracle: Oracle, record: JobRecord, running: Sequence[Process]) -> Iterator[str]:
    """Yield what a job lacks, in words."""
    spec = oracle.spec(record)
    if spec is None:
        yield f"version {record.version} is not there"
    elif record.stopped:
        if running:
            yield f"it is stopped, and runs as {running[0].process.key} on {running[0].host}"
    elif not record.type.keeps_running:
        wanted = _ENDED[fails(spec)]
        if record.status is not wanted:
            yield f"the batch job is {record.status}, not {wanted}: {record.message}"
    elif fails(spec) or _given_up(record):
        return  # it is tried again and again, or waits for somebody who says what instead
    elif record.type.everywhere:
        yield from _lacks_on_nodes(oracle, spec, running)
    else:
        yield from _lacks_copies(oracle, spec, running)


def _given_up(record: JobRecord) -> bool:
    """Return whether a rollout failed, as it does while nodes are silent, and had nothing to go back to."""
    rollout = record.rollout
    failed = rollout is not None and rollout.status == "failed" and rollout.version == record.version
    return failed and record.status is JobStatus.FAILED


def _lacks_copies(oracle: Oracle, spec: Job, running: Sequence[Process]) -> Iterator[str]:
    """Yield what slots of a service lack that could have it."""
    group = spec.groups[0]
    missing = 0
    for slot in range(group.count):
        there = [one for one in running if one.slot == f"{spec.name}/{slot}"]
        if len(there) == 1:
            yield from _wrong(oracle, group, there[0])
        elif there:
            yield f"{len(there)} processes run of slot {slot}, and 1 is wanted"
        else:
            missing += 1
    rooms = sum(_rooms(oracle, spec, node) for node in _nodes(oracle, spec))
    if missing and rooms >= (missing if group.gang else 1):
        yield f"{missing} of {group.count} slots have no process, and there is room for {rooms}"
    if len(running) > group.count:
        yield f"{len(running)} processes run, and {group.count} are wanted"


def _lacks_on_nodes(oracle: Oracle, spec: Job, running: Sequence[Process]) -> Iterator[str]:
    """Yield what a job lacks that wants a copy on each node."""
    for node in _nodes(oracle, spec):
        there = [one for one in running if one.host == node.name]
        if len(there) == 1:
            yield from _wrong(oracle, spec.groups[0], there[0])
        elif there or _rooms(oracle, spec, node):
            yield f"{len(there)} processes run on {node.name}, and 1 is wanted"


def _nodes(oracle: Oracle, spec: Job) -> Iterator[Node]:
    """Yield the nodes that suit a job."""
    for node in oracle.nodes.values():
        if node.schedulable and _suits(spec, node):
            yield node


def _rooms(oracle: Oracle, spec: Job, node: Node) -> int:
    """Return for how many more copies of a job there is room on a node."""
    group = spec.groups[0]
    there = [one for one in oracle.allocations if one.live and one.node_id == node.id]
    has = {"cpu": node.resources.cpu_millis, "memory": node.resources.memory_bytes, "disk": node.resources.disk_bytes}
    for one in there:
        for name, much in oracle.group(one).demand().items():
            has[name] -= much
    rooms = min(has[name] // much for name, much in group.demand().items() if much)
    if group.max_per_node is not None:
        rooms = min(rooms, group.max_per_node - sum(one.job == spec.name for one in there))
    fixed = {port.host for port in group.ports if port.host is not None}
    if fixed:
        rooms = min(rooms, int(not fixed & {port.host for one in there for port in one.ports}))
    return max(0, rooms)


def _wrong(oracle: Oracle, group: Group, process: Process) -> Iterator[str]:
    """Yield what is wrong with a process that is wanted."""
    record = oracle.allocation_of(process)
    if record is None:
        yield f"{process.slot} runs as {process.allocation}, which is not there"
    elif record.status is not AllocationStatus.RUNNING:
        yield f"{process.slot} runs, and is {record.status} in the records"
    elif oracle.group(record).tasks != group.tasks:
        yield f"{process.slot} runs in version {record.version}, which is not what is wanted"


def _suits(spec: Job, node: Node) -> bool:
    """Return whether a node has the labels that a job asks for; other constraints are none of the workload's."""
    asked = (*spec.constraints, *spec.groups[0].constraints)
    return all(node.attribute(one.attribute) == one.value for one in asked if one.attribute.startswith("label."))


def fails(spec: Job) -> bool:
    """Return whether a job is meant to fail."""
    return any(task.config.get("fails") or task.config.get("exit_code") for task in spec.groups[0].tasks)
