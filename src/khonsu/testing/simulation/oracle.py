"""The oracle: looks at everything from outside, and says which promise was broken.

It draws no chance and changes nothing. It is told of every commit when it is durable, of everything that a store holds
when it is opened, of every start and end of a process, and of every answer that a client was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

from attrs import field, frozen

from khonsu.abc.store import Change, Delete
from khonsu.core.job import Group, Job
from khonsu.core.records import KINDS, Allocation, JobRecord, Node, Record, key_of, version_key
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import KhonsuError
from khonsu.testing.fake_driver import FakeProcess
from khonsu.testing.simulation.sights import Sights
from khonsu.testing.simulation.story import told

Moves = Sequence[tuple[Record | None, Record | None]]
"""Records before and after a commit; None where there was or is none."""


@frozen
class Violation:
    """A promise that was broken."""

    promise: str
    what: str
    at: float = field(default=0.0, kw_only=True)
    """In seconds since the start of the run."""

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.promise} is broken after {self.at:.3f} s: {self.what}"


@frozen
class Process:
    """A process and where it runs."""

    host: str
    process: FakeProcess

    @property
    def slot(self) -> str:
        """Return the slot that it fills, as JOB/INDEX."""
        return f"{self.process.env['KHONSU_JOB']}/{self.process.env['KHONSU_SLOT']}"

    @property
    def allocation(self) -> str:
        """Return the allocation that it belongs to."""
        return self.process.env["KHONSU_ALLOC_ID"]

    @property
    def epoch(self) -> int:
        """Return its fencing token."""
        return int(self.process.env["KHONSU_EPOCH"])

    @property
    def exclusive(self) -> bool:
        """Return whether it must never run twice."""
        return self.process.lease < float("inf")


class Invariant:
    """A promise that must hold. Override what it looks at, and call `broken`."""

    promise: ClassVar[str]

    def __init__(self, world: Oracle) -> None:
        """Begin with the run."""
        self.oracle = world

    def broken(self, what: str) -> None:
        """Say that the promise is broken."""
        self.oracle.broken(self.promise, what)

    def opened(self, revision: Revision) -> None:
        """Look at what a store holds when it is opened; `oracle.tables` has it."""

    def restored(self, revision: Revision) -> None:
        """Look at a store that was put back from a copy, in a new term; `oracle.tables` has what it holds."""

    def committed(self, moves: Moves) -> None:
        """Look at a commit that is durable; `oracle.tables` has it."""

    def started(self, process: Process) -> None:
        """Look at a process that starts; it is not yet among `oracle.processes`."""

    def ended(self, process: Process, how: str) -> None:
        """Look at a process that has ended."""

    def acknowledged(self, job: str) -> None:
        """Look at a request about a job that was answered, by the key of the job."""

    def answered(self, source: str, operation: str, error: KhonsuError | None) -> None:
        """Look at what the control plane has answered a host that asked for an operation."""

    def finished(self) -> None:
        """Look at the end of the run, after all faults."""


class Oracle:
    """Knows what is durable and what runs, and asks the invariants.

    Args:
        invariants: What must hold.
        note: Is told what happens.
        report: Is given the first promise that is broken.
        processes: Tells what runs now.
        sights: What was seen beside the records.

    """

    def __init__(
        self,
        invariants: Iterable[type[Invariant]],
        *,
        note: Callable[[str, str], None],
        report: Callable[[str, str], None],
        processes: Callable[[], Sequence[Process]],
        sights: Sights | None = None,
    ) -> None:
        """Know of nothing."""
        self._note = note
        self._report = report
        self._processes = processes
        self.sights = sights if sights is not None else Sights()
        self.sights.answered = self._answered
        self.tables: dict[str, dict[str, Record]] = {kind: {} for kind in KINDS}
        """The records that are durable, by kind and key."""
        self.revision = ZERO
        """The last revision that is known to be durable."""
        self.submitted: dict[str, int] = {}
        """How often each job was submitted anew, by key, whether it was acknowledged or not."""
        self.acked: dict[str, float] = {}
        """When the last request about a job was acknowledged, by key, in seconds since the start of the run."""
        self.asked: dict[str, tuple[int, bool]] = {}
        """The version of each job that was acknowledged last, and whether it was stopped then."""
        self.count = 0
        """How often something was looked at."""
        self.invariants = tuple(invariant(self) for invariant in invariants)

    @property
    def processes(self) -> Sequence[Process]:
        """Return what runs now, on all hosts."""
        return self._processes()

    def broken(self, promise: str, what: str) -> None:
        """Report a promise that is broken."""
        self._report(promise, what)

    # What the invariants ask for.

    @property
    def allocations(self) -> Iterable[Allocation]:
        """Return all allocations."""
        return self.tables["allocation"].values()  # type: ignore[return-value]

    @property
    def jobs(self) -> Mapping[str, JobRecord]:
        """Return all jobs by key."""
        return self.tables["job"]  # type: ignore[return-value]

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Return all nodes by id."""
        return self.tables["node"]  # type: ignore[return-value]

    def allocation_of(self, process: Process) -> Allocation | None:
        """Return the allocation that a process is of, as far as it is written down."""
        return self.tables["allocation"].get(process.allocation)  # type: ignore[return-value]

    def spec(self, job: JobRecord) -> Job | None:
        """Return what is wanted of a job now, as far as it is written down."""
        version = self.tables["job_version"].get(version_key(job.key, job.version))
        return None if version is None else version.spec  # type: ignore[union-attr]

    def group(self, allocation: Allocation) -> Group:
        """Return the group of an allocation, in its version."""
        version = self.tables["job_version"][version_key(allocation.job_key, allocation.version)]
        return next(group for group in version.spec.groups if group.name == allocation.group)  # type: ignore[union-attr]

    # What it is told.

    def opened(self, revision: Revision, records: Iterable[Record]) -> None:
        """Take note of all that a store holds when it is opened; what is of an ended term is of no account."""
        self._note("oracle", f"a store is opened at {revision}")
        if revision.term < self.revision.term:
            return
        fresh: dict[str, dict[str, Record]] = {kind: {} for kind in KINDS}
        by_type = {kind.type: fresh[name] for name, kind in KINDS.items()}
        for record in records:
            by_type[type(record)][key_of(record)] = record
        moves: list[tuple[Record | None, Record | None]] = []
        for kind, now in fresh.items():
            before = self.tables[kind]
            moves += [(before.get(key), record) for key, record in now.items() if before.get(key) != record]
            moves += [(record, None) for key, record in before.items() if key not in now]
        if revision.term > self.revision.term:
            self._restored(revision, fresh)
            return
        self.tables = fresh
        for invariant in self.invariants:
            invariant.opened(revision)
        self.revision = revision
        self._ask(lambda invariant: invariant.committed(moves))

    def _restored(self, revision: Revision, fresh: dict[str, dict[str, Record]]) -> None:
        """Begin a term: what was acknowledged since the copy was made is lost, and nothing is compared with before."""
        self.tables = fresh
        self.revision = revision
        for job in list(self.asked):
            record = self.jobs.get(job)
            if record is None:
                self.forgetting(job)
            else:
                self.asked[job] = (record.version, record.stopped)
        for invariant in self.invariants:
            invariant.restored(revision)

    def committed(self, revision: Revision, changes: Iterable[Change]) -> None:
        """Take note of a commit; one of an ended term is of no account."""
        if revision.term < self.revision.term:
            return
        moves: list[tuple[Record | None, Record | None]] = []
        for change in changes:
            table = self.tables[change.kind]
            if isinstance(change, Delete):
                moves += [(table.pop(key), None) for key in change.keys if key in table]
            else:
                for record in change.records:
                    key = key_of(record)
                    moves.append((table.get(key), record))
                    table[key] = record
        self.revision = max(self.revision, revision)
        for before, after in moves:
            if text := told(before, after):
                self._note("records", text)
        self._ask(lambda invariant: invariant.committed(moves))

    def started(self, host: str, process: FakeProcess) -> None:
        """Take note of the start of a process."""
        one = Process(host, process)
        self._note(host, f"process {process.pid} starts: {one.slot} as {process.key}, epoch {one.epoch}")
        self._ask(lambda invariant: invariant.started(one))

    def ended(self, host: str, process: FakeProcess, how: str) -> None:
        """Take note of the end of a process."""
        one = Process(host, process)
        self._note(host, f"process {process.pid} ends: {one.slot} as {process.key}, {how}")
        self._ask(lambda invariant: invariant.ended(one, how))

    def submitting(self, job: str) -> None:
        """Take note that somebody begins to submit a job, and will go on until it is acknowledged."""
        self.submitted[job] = self.submitted.get(job, 0) + 1

    def acknowledged(self, job: str, version: int = 1, *, stopped: bool = False) -> None:
        """Take note that a request about a job was acknowledged, which has this version now."""
        self._note("client", f"{job} is acknowledged: version {version}{', stopped' if stopped else ''}")
        self.acked[job] = self.sights.now()
        self.asked[job] = (version, stopped)
        self._ask(lambda invariant: invariant.acknowledged(job))

    def forgetting(self, job: str) -> None:
        """Take note that somebody is about to have a job forgotten: nothing is promised of it any more."""
        self.acked.pop(job, None)
        self.asked.pop(job, None)

    def finished(self) -> None:
        """Take note of the end of the run."""
        self._ask(lambda invariant: invariant.finished())

    def _answered(self, source: str, operation: str, error: KhonsuError | None) -> None:
        for invariant in self.invariants:
            invariant.answered(source, operation, error)

    def _ask(self, look: Callable[[Invariant], None]) -> None:
        self.count += 1
        for invariant in self.invariants:
            look(invariant)
