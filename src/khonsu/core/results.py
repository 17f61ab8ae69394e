"""What the client gives back beyond the records: outcomes, results, plans and explanations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attrs import field, frozen

from khonsu.core.job import JSON, Job
from khonsu.core.records import Allocation, Event, PlacementFailure, Rollout, TaskStatus, Time
from khonsu.core.revision import Revision
from khonsu.core.states import JobStatus, JobType
from khonsu.core.value import Value
from khonsu.errors import JobFailed, Unplaceable

Outcome = Literal["created", "updated", "unchanged", "rerun"]
ResultStatus = Literal["healthy", "complete", "failed", "reverted", "blocked", "stopped", "superseded", "pending"]


@frozen(kw_only=True)
class Submission(Value):
    """The answer to a submit."""

    namespace: str
    job: str
    version: int
    run: int
    outcome: Outcome
    revision: Revision
    warnings: tuple[str, ...] = ()
    """For example that this count overrides an earlier `scale`."""


@frozen(kw_only=True)
class GroupSummary(Value):
    """How many copies of a group there are, by what they do."""

    name: str
    count: int
    pending: int = 0
    starting: int = 0
    running: int = 0
    healthy: int = 0
    complete: int = 0
    failed: int = 0
    unknown: int = 0


@frozen(kw_only=True)
class JobInfo(Value):
    """A job as it stands."""

    namespace: str
    name: str
    type: JobType
    status: JobStatus
    version: int
    run: int
    priority: int
    stopped: bool
    stable_version: int | None
    created_at: Time
    submitted_at: Time
    groups: tuple[GroupSummary, ...] = ()
    rollout: Rollout | None = None
    blocked: tuple[PlacementFailure, ...] = ()
    message: str = ""
    spec: Job | None = None
    """The current version's spec; None in lists."""
    allocations: tuple[Allocation, ...] = ()
    """The current allocation of each slot, then earlier ones that are not forgotten; empty in lists."""
    events: tuple[Event, ...] = ()
    """The latest events; empty in lists."""


@frozen(kw_only=True)
class Score(Value):
    """One term of a score."""

    name: str
    value: float


@frozen(kw_only=True)
class Refusal(Value):
    """One reason why a node was refused, with what was wanted and what is there."""

    reason: str
    wanted: str = ""
    present: str = ""

    def __str__(self) -> str:
        """Return it as a sentence."""
        there = f", {self.present}" if self.present else ""
        return f"{self.reason}: {self.wanted}{there}" if self.wanted else f"{self.reason}{there}"


@frozen(kw_only=True)
class NodeExplanation(Value):
    """What a node was to a group: how many copies it got, with the score's terms, or every reason why not."""

    node: str
    placed: int = 0
    score: float | None = None
    terms: tuple[Score, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    lost_by: float | None = None
    """How far its score was below that of the last node chosen."""


@frozen(kw_only=True)
class GroupExplanation(Value):
    """The nodes for one group, the nearest to success first."""

    group: str
    wanted: int
    placed: int
    nodes: tuple[NodeExplanation, ...] = ()


@frozen(kw_only=True)
class Explanation(Value):
    """Why a job's copies are where they are, node by node."""

    namespace: str
    job: str
    version: int
    scheduler: str
    revision: Revision
    groups: tuple[GroupExplanation, ...] = ()
    message: str = ""


@frozen(kw_only=True)
class FieldChange(Value):
    """One difference between two versions of a job."""

    path: str
    before: JSON = None
    after: JSON = None


@frozen(kw_only=True)
class GroupPlan(Value):
    """What a plan would do for one group."""

    group: str
    place: int = 0
    stop: int = 0
    update: int = 0
    keep: int = 0
    unplaced: int = 0


@frozen(kw_only=True)
class JobPlan(Value):
    """What submitting a job would change; nothing is committed."""

    namespace: str
    job: str
    outcome: Outcome
    diff: tuple[FieldChange, ...] = ()
    groups: tuple[GroupPlan, ...] = ()
    explanation: Explanation

    @property
    def placeable(self) -> bool:
        """Return whether every copy has a place."""
        return all(group.unplaced == 0 for group in self.groups)


@frozen(kw_only=True)
class JobResult(Value):
    """How a run of a job stands or ended."""

    namespace: str
    job: str
    version: int
    run: int
    type: JobType
    status: ResultStatus
    allocations: tuple[Allocation, ...] = ()
    """The current allocation of each slot, by group and slot."""
    unplaced: int = 0
    """How many copies are wanted and have no place yet."""
    explanation: Explanation | None = None
    exit_code: int | None = None
    message: str = ""
    revision: Revision

    def raise_for_status(self) -> JobResult:
        """Return the result if it is good.

        Raises:
            Unplaceable: The job is blocked.
            JobFailed: The job failed, was reverted, stopped or superseded.

        """
        if self.status == "blocked":
            raise Unplaceable(f"job {self.job} is not placed: {self.message}", explanation=self.explanation)
        if self.status not in ("healthy", "complete"):
            why = f": {self.message}" if self.message else ""
            raise JobFailed(f"job {self.job} is {self.status}{why}", result=self)
        return self


@frozen(kw_only=True)
class Invitation(Value):
    """A join token, shown once."""

    token: str = field(repr=False)
    name: str | None
    labels: Mapping[str, str]
    expires_at: Time


@frozen(kw_only=True)
class SystemStatus(Value):
    """The control plane itself."""

    cluster: str
    version: str
    protocol: int
    term: int
    revision: Revision
    now: Time
    nodes_ready: int
    nodes_down: int
    jobs: int
    allocations_live: int
    warnings: tuple[str, ...] = ()


def first_failed_task(allocations: tuple[Allocation, ...]) -> TaskStatus | None:
    """Return the first failed task by group, slot and task."""
    ordered = sorted(allocations, key=lambda allocation: (allocation.group, allocation.slot))
    return next((task for allocation in ordered for task in allocation.tasks if task.failed), None)
