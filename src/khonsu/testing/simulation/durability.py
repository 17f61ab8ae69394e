"""The promises about what is written: each commit leaves a whole, a failure leaves no trace, and it stays small."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from khonsu.control import pruner
from khonsu.core.codec import to_json
from khonsu.core.job import JSON
from khonsu.core.records import KIND_OF, Allocation, Evaluation, Event, JobRecord, Record, key_of, version_key
from khonsu.core.revision import Revision
from khonsu.core.states import EvaluationStatus
from khonsu.errors import KhonsuError, StoreError
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle
from khonsu.testing.simulation.programs import CONTROL

ACTIVE: Final = (EvaluationStatus.PENDING, EvaluationStatus.BLOCKED)
ACTIVE_MAX: Final = 3
"""How many evaluations of a job may be under way: one that is looked at, one that waits, one that is due later."""
JITTER: Final = 0.2
"""By how much of itself the time between two rounds of the pruner varies."""
ROUND_SECONDS: Final = 5.0
"""How long a round may take."""


class EachCommitIsWhole(Invariant):
    """Whatever is written, a crash right behind it leaves what the control plane goes on with by itself."""

    promise: ClassVar[str] = "D3"

    def committed(self, moves: Moves) -> None:
        """Look whether somebody will look at each job that changed, and whether all is there that is spoken of."""
        looked = {after.job for _, after in moves if isinstance(after, Evaluation)}
        for before, after in moves:
            if isinstance(after, JobRecord | Allocation) and not self._is_left(after):
                continue
            if isinstance(after, JobRecord):
                self._check_version(after.key, after.version)
                if not isinstance(before, JobRecord) or _wanted(before) != _wanted(after):
                    self._check_look(after.key, f"version {after.version} of it was written", looked)
            elif isinstance(after, Allocation):
                self._check_version(after.job_key, after.version)
                if isinstance(before, Allocation) and before.live and not after.live:
                    self._check_look(after.job_key, f"its copy {after.id} has ended", looked)

    def _is_left(self, record: JobRecord | Allocation) -> bool:
        """Return whether a commit that wrote a record has not deleted it, too."""
        return key_of(record) in self.oracle.tables[KIND_OF[type(record)].name]

    def _check_version(self, job: str, version: int) -> None:
        if version_key(job, version) not in self.oracle.tables["job_version"]:
            self.broken(f"version {version} of {job} is spoken of, and is not there")

    def _check_look(self, job: str, why: str, looked: set[str]) -> None:
        if job not in looked and job in self.oracle.jobs and not any(_active(self.oracle, job)):
            self.broken(f"nobody will look at {job} after a crash now, and {why}")


def _wanted(record: JobRecord) -> tuple[object, ...]:
    return record.version, record.run, record.stopped


def _active(oracle: Oracle, job: str) -> Iterator[Evaluation]:
    for one in oracle.tables["evaluation"].values():
        if isinstance(one, Evaluation) and one.job == job and one.status in ACTIVE:
            yield one


class FailuresLeaveNoTrace(Invariant):
    """A write that fails leaves nothing behind, and its request fails with an error that says to try again."""

    promise: ClassVar[str] = "D4"

    def __init__(self, world: Oracle) -> None:
        """Have seen no commit."""
        super().__init__(world)
        self._last: Revision | None = None
        self._same = False

    def opened(self, revision: Revision) -> None:
        """Note whether the store is as it was left."""
        self._same = revision == self._last
        self._last = None

    def restored(self, revision: Revision) -> None:
        """Begin anew."""
        self._same, self._last = False, None

    def committed(self, moves: Moves) -> None:
        """Look whether anything has come in between."""
        now = self.oracle.revision
        # Written down, a time is shorter by some digits.
        if self._same and (other := [(one, two) for one, two in moves if _text(one) != _text(two)]):
            self.broken(f"the store is at {now} as before, and holds something else: {other[0]}")
        if self._last is not None and now.term == self._last.term and now.number != self._last.number + 1:
            self.broken(f"a commit has revision {now}, and the one before it had {self._last}")
        self._same, self._last = False, now

    def answered(self, source: str, operation: str, error: KhonsuError | None) -> None:
        """Look at what a failing disk has said."""
        if isinstance(error, StoreError) and not error.retryable:
            self.broken(f"{operation} of {source} failed for good: {type(error).__name__}: {error.message}")


def _text(record: Record | None) -> JSON:
    return None if record is None else to_json(record)


class StaysBounded(Invariant):
    """What is written for a job does not pile up: looks at it, and what the policy says is to be forgotten."""

    promise: ClassVar[str] = "D5"

    def __init__(self, world: Oracle) -> None:
        """Know of nothing that has ended."""
        super().__init__(world)
        self._ended: dict[str, float] = {}
        self._events: dict[str, float] = {}

    def restored(self, revision: Revision) -> None:
        """Begin anew with what is there."""
        self._ended.clear()
        self._events.clear()
        self.committed([(None, one) for kind in ("evaluation", "event") for one in self.oracle.tables[kind].values()])

    def committed(self, moves: Moves) -> None:
        """Count the looks that wait, and note when something ended."""
        now = self.oracle.sights.now()
        jobs: dict[str, None] = {}
        for before, after in moves:
            if isinstance(after, Event):
                self._events[after.id] = now
            elif isinstance(after, Evaluation) and after.status in ACTIVE:
                jobs[after.job] = None
            elif isinstance(after, Evaluation):
                self._ended.setdefault(after.id, now)
            elif isinstance(before, Event):
                self._events.pop(before.id, None)
            elif isinstance(before, Evaluation):
                self._ended.pop(before.id, None)
        for job in jobs:
            if (count := len(list(_active(self.oracle, job)))) > ACTIVE_MAX:
                self.broken(f"{count} evaluations of {job} are under way")

    def finished(self) -> None:
        """Count what should have been forgotten by the last round of the pruner, if one was sure to come."""
        sights = self.oracle.sights
        rounds_ago = pruner.INTERVAL_SECONDS * (1.0 + JITTER) + ROUND_SECONDS
        last = sights.now() - rounds_ago
        if last <= max(sights.opened_at, sights.failed_at, sights.hurt_at(CONTROL)):
            return
        policy = sights.retention
        if late := [key for key, at in self._ended.items() if self._is_old(key, at, last - policy.evaluations_seconds)]:
            self.broken(f"{len(late)} evaluations have ended too long ago, {late[0]} first")
        # They are forgotten in their order: one that a clock of another day wrote keeps those behind it for that long.
        events = [one for one in self.oracle.tables["event"].values() if isinstance(one, Event)]
        in_order = all(sights.true_time(one.at) <= sights.now() for one in events)
        old = [key for key, at in self._events.items() if self._is_old(key, at, last - policy.events_seconds)]
        if in_order and (late := old):
            self.broken(f"{len(late)} events are too old, {late[0]} first")
        if (count := sum(at < last for at in self._events.values())) > policy.events_max:
            self.broken(f"{count} events are left of those before the last round, and {policy.events_max} are kept")

    def _is_old(self, key: str, noted_at: float, before: float) -> bool:
        """Return whether a record is old, also by its own time: a clock that was set has some be of another day."""
        record = self.oracle.tables["evaluation"].get(key) or self.oracle.tables["event"].get(key)
        match record:
            case Event():
                at = record.at
            case Evaluation():
                at = record.created_at
            case _:
                return False
        return max(noted_at, self.oracle.sights.true_time(at)) < before
