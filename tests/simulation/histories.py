"""Histories for the oracle: what it is told, line by line, without a world."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from khonsu.abc.driver import TaskExit
from khonsu.abc.store import Delete, Put
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import Job, Resources
from khonsu.core.records import (
    KIND_OF,
    Allocation,
    Evaluation,
    Event,
    JobRecord,
    JobVersion,
    Node,
    NodeResources,
    Record,
    TaskStatus,
    Time,
    key_of,
    version_key,
)
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus, EvaluationStatus, NodeStatus, TaskState
from khonsu.testing.fake_driver import FakeConfig, FakeProcess
from khonsu.testing.simulation.clock import START, HostClock
from khonsu.testing.simulation.oracle import Invariant, Oracle, Process
from khonsu.testing.simulation.sights import Sights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khonsu.abc.store import Change

JOB = "default/web"
SYNC = "node.sync"


class StoppedClock(HostClock):
    """A host's clocks that say what they are told."""

    def __init__(self, history: History) -> None:
        super().__init__(random.Random(1))
        self.history = history

    def monotonic(self) -> float:
        """Return the time of the history."""
        return self.history.now

    def wall(self) -> float:
        """Return the wall clock."""
        return START + self.wall_offset + self.history.now


class History:
    """An oracle, and who tells it."""

    def __init__(self, *invariants: type[Invariant]) -> None:
        self.now = 0.0
        self.broken: list[str] = []
        self.running: list[Process] = []
        self.sights = Sights(now=lambda: self.now)
        self.clock = StoppedClock(self)
        self.number = 0
        self.oracle = Oracle(
            invariants,
            note=lambda *_: None,
            report=lambda promise, what: self.broken.append(f"{promise}: {what}"),
            processes=lambda: self.running,
            sights=self.sights,
        )
        self.open()

    def open(self, revision: int | None = None, records: Sequence[Record] | None = None) -> None:
        """Have a control plane open its store, as it was left or with other records."""
        kept = [record for table in self.oracle.tables.values() for record in table.values()]
        self.sights.opened(self.clock)
        self.oracle.opened(
            Revision(0, self.number if revision is None else revision), kept if records is None else records
        )

    def commit(self, *records: Record, forget: Sequence[Record] = (), skip: int = 0) -> None:
        """Have records written, and others deleted."""
        self.number += 1 + skip
        changes: list[Change] = [Put(KIND_OF[type(record)].name, (record,)) for record in records]
        changes += [Delete(KIND_OF[type(record)].name, (key_of(record),)) for record in forget]
        self.oracle.committed(Revision(0, self.number), changes)

    def start(self, copy: Allocation, *, attempt: int = 1, epoch: int | None = None, **fields: Any) -> Process:
        """Have the process of a copy start."""
        made = FakeProcess(
            f"{copy.id}/web/{attempt}",
            1000,
            FakeConfig(),
            float("inf"),
            TaskExit(code=0),
            env={
                "KHONSU_JOB": copy.job,
                "KHONSU_SLOT": str(copy.slot),
                "KHONSU_ALLOC_ID": copy.id,
                "KHONSU_EPOCH": str(attempt if epoch is None else epoch),
            },
            **fields,
        )
        self.oracle.started(copy.node, made)
        process = Process(copy.node, made)
        self.running.append(process)
        return process

    def end(self, process: Process, how: str = "code 0", exit_: TaskExit | None = None) -> None:
        """Have a process end."""
        process.process.own_end = self.now
        if exit_ is not None:
            process.process.own_exit = exit_
        self.running.remove(process)
        self.oracle.ended(process.host, process.process, how)

    def call(self, host: str) -> None:
        """Have an agent call, and be served."""
        self.sights.request_arrived(host, SYNC)
        self.sights.request_served(host, SYNC, self.now, None)

    def submit(self, spec: Job | None = None, **fields: Any) -> None:
        """Have a job written down and acknowledged."""
        self.oracle.submitting(JOB)
        self.commit(*job(spec, **fields), evaluation())
        self.oracle.acknowledged(JOB)


def at(seconds: float) -> Time:
    """Return a time of the records."""
    return Time(START + seconds)


def job(spec: Job | None = None, **fields: Any) -> tuple[JobRecord, JobVersion]:
    """Return a job and its version."""
    known = spec if spec is not None else Job.single("web", FakeConfig(), resources=Resources(cpu=1.0))
    record = JobRecord(
        **{
            "key": JOB,
            "namespace": "default",
            "name": "web",
            "type": known.type,
            "version": 1,
            "created_at": at(0),
            "submitted_at": at(0),
            **fields,
        }
    )
    key = version_key(JOB, record.version)
    return record, JobVersion(key=key, job=JOB, version=record.version, spec=known, created_at=at(0))


def evaluation(number: int = 1, **fields: Any) -> Evaluation:
    """Return an evaluation that waits."""
    known = {"job": JOB, "priority": 50, "trigger": "submit", "created_at": at(0), **fields}
    return Evaluation(id=EvaluationId(f"e{number}"), **known)


def ended(number: int = 1, **fields: Any) -> Evaluation:
    """Return an evaluation that has ended."""
    return evaluation(number, status=EvaluationStatus.COMPLETE, **fields)


def event(number: int, seconds: float) -> Event:
    """Return an event."""
    return Event(id=f"x{number}", revision=Revision(0, number), at=at(seconds), type="job-submitted")


def allocation(number: int = 1, **fields: Any) -> Allocation:
    """Return a copy that runs."""
    known: dict[str, Any] = {
        "namespace": "default",
        "job": "web",
        "version": 1,
        "group": "main",
        "slot": 0,
        "node_id": NodeId("n1"),
        "node": "agent-1",
        "status": AllocationStatus.RUNNING,
        "evaluation": EvaluationId("e1"),
        "created_at": at(0),
        "changed_at": at(0),
    }
    return Allocation(id=AllocationId(f"a{number}"), **{**known, **fields})


def task(attempt: int, code: int) -> TaskStatus:
    """Return a task that has ended."""
    return TaskStatus(name="web", status=TaskState.COMPLETE, attempt=attempt, exit_code=code)


def node(number: int = 1, **fields: Any) -> Node:
    """Return a node that is ready."""
    known: dict[str, Any] = {
        "name": f"agent-{number}",
        "resources": NodeResources(cpu_millis=4000, memory_bytes=2**33, disk_bytes=2**36),
        "joined_at": at(0),
        "status_at": at(0),
    }
    return Node(id=NodeId(f"n{number}"), **{**known, **fields})


def down(number: int, seconds: float) -> Node:
    """Return a node that was marked down at a time."""
    return node(number, status=NodeStatus.DOWN, status_at=at(seconds))
