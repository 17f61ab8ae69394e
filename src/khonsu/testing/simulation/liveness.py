"""The promises about coming to rest: nothing is tried for ever, and what is reached stays."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import ClassVar, Final

from khonsu.core.records import Evaluation
from khonsu.errors import KhonsuError
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle, Process
from khonsu.testing.simulation.reached import REACH_SECONDS, fails

ATTEMPTS_MAX: Final = 10
"""So often a plan of one evaluation may be refused: others may be quicker now and then, and not each time."""
LOOKS_MAX: Final = 200
LOOKS_SECONDS: Final = 10.0
"""A job is looked at less often than so many times in so many seconds."""
CALLS_MAX: Final = 200
CALLS_SECONDS: Final = 2.0
"""A host calls less often than so many times in so many seconds."""
REST_SECONDS: Final = 5.0
"""For so long before the end nothing starts or ends of a service that has what it wants."""


class NothingIsTriedForEver(Invariant):
    """No plan that cannot be carried out is made for ever; no job is looked at, and nobody calls, without a pause."""

    promise: ClassVar[str] = "L3"

    def __init__(self, world: Oracle) -> None:
        """Have seen no look."""
        super().__init__(world)
        self._looks: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LOOKS_MAX))
        self._calls: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=CALLS_MAX))

    def answered(self, source: str, operation: str, error: KhonsuError | None) -> None:
        """Count the calls of each host."""
        now, calls = self.oracle.sights.now(), self._calls[source]
        if len(calls) == CALLS_MAX and now - calls[0] < CALLS_SECONDS:
            self.broken(f"{source} calls {CALLS_MAX} times in {now - calls[0]:.3f} s, and {operation} again")
        calls.append(now)

    def committed(self, moves: Moves) -> None:
        """Count the tries and the looks."""
        now = self.oracle.sights.now()
        for before, after in moves:
            if not isinstance(after, Evaluation):
                continue
            if after.attempts > ATTEMPTS_MAX:
                self.broken(f"the plan of evaluation {after.id} of {after.job} was refused {after.attempts} times")
            if before is None:
                looks = self._looks[after.job]
                if len(looks) == LOOKS_MAX and now - looks[0] < LOOKS_SECONDS:
                    self.broken(f"{after.job} is looked at {LOOKS_MAX} times in {now - looks[0]:.3f} s")
                looks.append(now)


class StaysThere(Invariant):
    """What is reached after all faults stays: nothing of a service starts or ends any more."""

    promise: ClassVar[str] = "L1"

    def __init__(self, world: Oracle) -> None:
        """Have seen nothing move."""
        super().__init__(world)
        self._moved: dict[str, tuple[float, str]] = {}

    def started(self, process: Process) -> None:
        """Note that a job moves."""
        self._move(process, "starts")

    def ended(self, process: Process, how: str) -> None:
        """Note that a job moves."""
        self._move(process, f"ends: {how}")

    def finished(self) -> None:
        """Look whether something has moved lately."""
        now = self.oracle.sights.now()
        for job, (at, what) in self._moved.items():
            if now - at < REST_SECONDS and self._is_settled(job, now):
                self.broken(f"{job} is not at rest: {now - at:.3f} s before the end {what}")

    def _move(self, process: Process, what: str) -> None:
        record = self.oracle.allocation_of(process)
        if record is not None:
            self._moved[record.job_key] = self.oracle.sights.now(), f"{process.process.key} on {process.host} {what}"

    def _is_settled(self, job: str, now: float) -> bool:
        record, asked_at = self.oracle.jobs.get(job), self.oracle.acked.get(job)
        if record is None or asked_at is None or now - asked_at < REACH_SECONDS or not record.type.keeps_running:
            return False
        spec = self.oracle.spec(record)
        return spec is not None and not fails(spec)
