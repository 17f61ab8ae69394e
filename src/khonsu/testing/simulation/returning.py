"""The promises about agents: they go on with what they had, do only what is wanted, and tell how it ended."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar, Final

from khonsu.core.records import Allocation, Node
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus, Desired
from khonsu.testing.simulation.oracle import Invariant, Moves, Oracle, Process
from khonsu.testing.simulation.reached import REACH_SECONDS, fails

RETURN_SECONDS: Final = 10.0
"""For how long after its start an agent is one that has just come back."""
TERM_SECONDS: Final = 30.0
"""For how long after the start of a term an agent may still do what the last one wanted."""
LOST_POWER: Final = "lost power"

_A = AllocationStatus


class _Wanted(Invariant):
    """Knows what is wanted of the allocation of a process, as far as it is written down."""

    def __init__(self, world: Oracle) -> None:
        """Know of no term but the first."""
        super().__init__(world)
        self._term_at = float("-inf")
        self._began: dict[str, float] = {}

    def started(self, process: Process) -> None:
        """Note when it began."""
        self._began[process.process.key] = self.oracle.sights.now()

    def restored(self, revision: Revision) -> None:
        """Note when a term began."""
        self._term_at = self.oracle.sights.now()

    @property
    def term_is_young(self) -> bool:
        """Return whether what an agent knows may be of the last term."""
        return self.oracle.sights.now() - self._term_at < TERM_SECONDS

    def unasked(self, process: Process, how: str) -> str:
        """Return why a process should have gone on that its agent has ended, or an empty text."""
        sights = self.oracle.sights
        if not how.startswith("signal") or self.term_is_young or process.process.key in sights.struck:
            return ""
        record = self.oracle.allocation_of(process)
        if record is None or not record.live or record.desired is Desired.STOP:
            return ""
        if sights.damaged_at(process.host) > self._began.get(process.process.key, 0.0):
            return ""  # an agent that knows nothing any more ends what it finds
        if self.oracle.group(record).disconnect.stop_after_seconds is not None:
            return ""
        return f"{process.slot} as {process.process.key} is ended on {process.host} ({how}), and is to run"


class ReturnsToItsTasks(_Wanted):
    """An agent that comes back ends nothing that is wanted."""

    promise: ClassVar[str] = "S5"

    def ended(self, process: Process, how: str) -> None:
        """Look whether an agent that has just come back has ended it."""
        since = self.oracle.sights.now() - self.oracle.sights.agent_since(process.host)
        if since < RETURN_SECONDS and (why := self.unasked(process, how)):
            self.broken(f"{why}; the agent came back {since:.3f} s before")


class ActsOnWhatIsWanted(_Wanted):
    """An agent starts and ends only what is wanted by what is written, and never what it has told the end of."""

    promise: ClassVar[str] = "S6"

    def started(self, process: Process) -> None:
        """Look whether it is wanted here."""
        super().started(process)
        record = self.oracle.allocation_of(process)
        if record is None:
            if not self.term_is_young:
                self.broken(
                    f"{process.slot} as {process.process.key} starts on {process.host}, and is not written down"
                )
        elif record.node != process.host:
            self.broken(f"{process.slot} as {process.process.key} starts on {process.host}, not on {record.node}")
        elif record.status.terminal and record.status is not _A.LOST:
            self.broken(f"{process.slot} as {process.process.key} starts, and has ended as {record.status}")

    def ended(self, process: Process, how: str) -> None:
        """Look whether an agent that is there has ended it on a view that was empty or old."""
        since = self.oracle.sights.now() - self.oracle.sights.agent_since(process.host)
        if since >= RETURN_SECONDS and (why := self.unasked(process, how)):
            self.broken(why)


class TellsHowItEnded(Invariant):
    """What is written of the end of a task is how it ended; and an end that an agent has seen is not lost."""

    promise: ClassVar[str] = "S5"

    def __init__(self, world: Oracle) -> None:
        """Know of no end."""
        super().__init__(world)
        self._ends: defaultdict[str, dict[tuple[str, int], int | None]] = defaultdict(dict)

    def ended(self, process: Process, how: str) -> None:
        """Note how it ended."""
        allocation, task, attempt = process.process.key.split("/")
        code = process.process.exit.code if how != LOST_POWER else None
        self._ends[allocation][task, int(attempt)] = code

    def committed(self, moves: Moves) -> None:
        """Compare."""
        for before, after in moves:
            if not isinstance(after, Allocation):
                if isinstance(before, Allocation) and after is None:
                    self._ends.pop(before.id, None)
                continue
            known = self._ends.get(after.id, {})
            for task in after.tasks:
                key = task.name, task.attempt
                if task.exit_code is not None and known.get(key) != task.exit_code:
                    self.broken(
                        f"{task.name} of {after.id} is said to have ended with code {task.exit_code} in attempt "
                        f"{task.attempt}, and ended with {known.get(key, 'nothing')}"
                    )
            if after.status is _A.COMPLETE and 0 not in known.values():
                self.broken(f"{after.id} is said to be complete, and no task of it has ended well")


class OneSurvives(Invariant):
    """Of the copies of a slot exactly one stays when a silent node has returned."""

    promise: ClassVar[str] = "S9"

    def committed(self, moves: Moves) -> None:
        """Look whether all copies of a slot are stopped at once that could go on."""
        stopped: defaultdict[tuple[str, str, int], list[Allocation]] = defaultdict(list)
        for before, after in moves:
            if isinstance(before, Allocation) and isinstance(after, Allocation) and _turned(before, after):
                stopped[after.job_key, after.group, after.slot].append(after)
        for (job, group, slot), found in stopped.items():
            if len(found) > 1 and self._could_go_on(job, found) and not self._left(job, group, slot):
                self.broken(f"all {len(found)} copies of slot {slot} of {job} are stopped at once")

    def _could_go_on(self, job: str, copies: list[Allocation]) -> bool:
        """Return whether nothing speaks against any of some copies but that there are several."""
        record = self.oracle.jobs.get(job)
        if record is None or record.stopped or record.type.everywhere or not record.type.keeps_running:
            return False
        nodes = [self.oracle.nodes.get(one.node_id) for one in copies]
        return all(one.version == record.version for one in copies) and all(
            node is not None and node.schedulable for node in nodes
        )

    def _left(self, job: str, group: str, slot: int) -> bool:
        """Return whether a copy of a slot is to run on, or is beyond what is wanted."""
        spec = self.oracle.spec(self.oracle.jobs[job])
        if spec is None:
            return True
        wanted = spec.group(group)
        if wanted is None or slot >= wanted.count:
            return True
        return any(
            (one.job_key, one.group, one.slot) == (job, group, slot) and one.live and one.desired is Desired.RUN
            for one in self.oracle.allocations
        )

    def finished(self) -> None:
        """Count the copies that are to run."""
        copies: defaultdict[tuple[str, str, int], list[Allocation]] = defaultdict(list)
        for one in self.oracle.allocations:
            if one.live and one.desired is Desired.RUN:
                copies[one.job_key, one.group, one.slot].append(one)
        for (job, _, slot), found in copies.items():
            if len(found) > 1 and self._settled(job):
                where = ", ".join(f"{one.id} on {one.node}" for one in found)
                self.broken(f"slot {slot} of {job} has {len(found)} copies: {where}")

    def _settled(self, job: str) -> bool:
        record = self.oracle.jobs.get(job)
        asked_at = self.oracle.acked.get(job)
        if record is None or asked_at is None or self.oracle.sights.now() - asked_at < REACH_SECONDS:
            return False
        spec = self.oracle.spec(record)
        return spec is not None and not fails(spec) and not spec.type.everywhere


def _turned(before: Allocation, after: Allocation) -> bool:
    """Return whether a copy that runs is to stop now."""
    return before.desired is Desired.RUN and after.desired is Desired.STOP and before.status is _A.RUNNING


class DamageIsTold(Invariant):
    """An agent whose journal was damaged starts, and says so."""

    promise: ClassVar[str] = "S10"

    def __init__(self, world: Oracle) -> None:
        """Have heard of no damage."""
        super().__init__(world)
        self._told: dict[str, float] = {}

    def committed(self, moves: Moves) -> None:
        """Note who speaks of damage."""
        for _, after in moves:
            if isinstance(after, Node) and "journal.damaged" in after.attributes:
                self._told[after.name] = self.oracle.sights.now()

    def finished(self) -> None:
        """Look whether each agent that found damage has said so."""
        sights = self.oracle.sights
        for host, found_at in sights.found_damage.items():
            heard_at = sights.heard_at(host)
            if heard_at > found_at + 1.0 and self._told.get(host, float("-inf")) < found_at:
                self.broken(f"the agent of {host} found its journal damaged after {found_at:.3f} s, and never said so")
