"""The records: what the control plane remembers. Most are also what a client is given.

Times (`_at`) are seconds since 1970 UTC in Python and RFC 3339 in JSON. Each kind of record has one writer, named in
its docstring. `KINDS` lists them for the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NewType

from attrs import field, frozen

from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import JSON, Job
from khonsu.core.revision import Revision
from khonsu.core.states import (
    AllocationStatus,
    Desired,
    Eligibility,
    EvaluationStatus,
    JobStatus,
    JobType,
    NodeStatus,
    TaskState,
)
from khonsu.core.value import Value

Time = NewType("Time", float)
"""Seconds since 1970 UTC; RFC 3339 in JSON."""


def job_key(namespace: str, name: str) -> str:
    """Return the key of a job: names hold no slash."""
    return f"{namespace}/{name}"


@frozen(kw_only=True)
class Rollout(Value):
    """The replacement of an earlier version by the current one. Written by the rollout loop."""

    version: int
    status: str = "running"  # running, successful, failed, cancelled
    started_at: Time
    progressed_at: Time
    message: str = ""


@frozen(kw_only=True)
class JobRecord(Value):
    """A job as it stands. Written by the intake (version, stopped) and by the planner and the reports (status)."""

    key: str
    namespace: str
    name: str
    type: JobType
    version: int
    status: JobStatus = JobStatus.PENDING
    stopped: bool = False
    purge: bool = False
    """Whether a stopped job is forgotten as soon as its copies have ended."""
    stable_version: int | None = None
    created_at: Time
    submitted_at: Time
    generation: int = 0
    """Raised with every plan that places copies: the middle part of their fencing tokens."""
    rollout: Rollout | None = None
    message: str = ""
    run: int = 1
    """Raised by each re-run of a batch job: allocations of earlier runs no longer count."""


@frozen(kw_only=True)
class JobVersion(Value):
    """One version of a job's spec; never changed but for `stable`. Written by the intake."""

    key: str
    job: str
    version: int
    spec: Job
    created_at: Time
    origin: str = "submit"  # submit, scale, revert
    failed_version: int | None = None
    """For a revert that Khonsu made by itself: the version whose rollout failed."""
    message: str = ""
    stable: bool = False


def version_key(job: str, version: int) -> str:
    """Return the key of a version of a job."""
    return f"{job}/{version}"


@frozen(kw_only=True)
class PlacementFailure(Value):
    """Why copies of a group were not placed: how many nodes each reason refused."""

    group: str
    wanted: int
    placed: int
    nodes: int
    reasons: Mapping[str, int] = field(factory=dict)


@frozen(kw_only=True)
class Evaluation(Value):
    """A request to look at a job again. Written by whoever saw the cause; ended by the planner."""

    id: EvaluationId
    job: str
    priority: int
    trigger: str  # submit, stop, scale, revert, node-up, node-down, drain, failed, rollout, retry, ...
    status: EvaluationStatus = EvaluationStatus.PENDING
    created_at: Time
    not_before: Time = Time(0.0)
    attempts: int = 0
    blocked_on: tuple[str, ...] = ()
    """The resources, attributes or drivers that were lacking: what wakes it."""
    failures: tuple[PlacementFailure, ...] = ()
    message: str = ""


@frozen(kw_only=True)
class TaskStatus(Value):
    """One task of an allocation. Written by the agent."""

    name: str
    status: TaskState = TaskState.PENDING
    attempt: int = 0
    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    pid: int | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    message: str = ""

    @property
    def failed(self) -> bool:
        """Return whether the task ended badly."""
        return self.status is TaskState.FAILED

    @property
    def code(self) -> int | None:
        """Return the exit code as a shell tells it: 128 + n for signal n."""
        return 128 + self.signal if self.signal is not None else self.exit_code


@frozen(kw_only=True)
class PortAssignment(Value):
    """A port of a group on its node."""

    name: str
    host: int
    task: int


@frozen(kw_only=True)
class Allocation(Value):
    """One copy of one group on one node.

    `desired` is written by the planner and by stops; `status`, `health` and `tasks` by the agent's reports, and by the
    control plane only when the node is silent (`unknown`) or known to have lost it (`lost`).
    """

    id: AllocationId
    namespace: str
    job: str
    version: int
    run: int = 1
    group: str
    slot: int
    node_id: NodeId
    node: str
    """The node's name."""
    desired: Desired = Desired.RUN
    status: AllocationStatus = AllocationStatus.PENDING
    health: bool | None = None
    """True once healthy, False once it failed to become so in time, None before."""
    generation: int = 1
    ports: tuple[PortAssignment, ...] = ()
    exit_code: int | None = None
    tasks: tuple[TaskStatus, ...] = ()
    previous: AllocationId | None = None
    """The allocation of the slot that this one replaces."""
    replaces: bool = False
    """Whether `previous` runs on until this one is healthy (start-first, canaries and replaced unknown copies)."""
    reschedules: int = 0
    evaluation: EvaluationId
    score: float = 0.0
    created_at: Time
    changed_at: Time
    """When its status last changed."""
    healthy_at: Time | None = None
    desired_at: int = 0
    """The number of the revision that last changed what is wanted of it: what an agent has not seen yet."""
    message: str = ""

    @property
    def job_key(self) -> str:
        """Return the key of its job."""
        return f"{self.namespace}/{self.job}"

    @property
    def live(self) -> bool:
        """Return whether it still counts against its node."""
        return not self.status.terminal


@frozen(kw_only=True)
class NodeResources(Value):
    """What a node has for tasks."""

    cpu_millis: int
    memory_bytes: int
    disk_bytes: int


@frozen(kw_only=True)
class DriverInfo(Value):
    """A driver on a node: its version, the JSON Schema of its config, and what it says of itself."""

    name: str
    version: str = ""
    healthy: bool = True
    message: str = ""
    config_schema: Mapping[str, JSON] = field(factory=dict)
    attributes: Mapping[str, str] = field(factory=dict)


@frozen(kw_only=True)
class Node(Value):
    """A machine. Written by its registration, the lease loop (`status`) and operators (`eligibility`)."""

    id: NodeId
    name: str
    pool: str = "default"
    status: NodeStatus = NodeStatus.READY
    eligibility: Eligibility = Eligibility.ELIGIBLE
    labels: Mapping[str, str] = field(factory=dict)
    granted_labels: Mapping[str, str] = field(factory=dict)
    """Those of `labels` that the invitation gave it: the agent cannot change them."""
    attributes: Mapping[str, str] = field(factory=dict)
    """What the agent found, by bare name (`os`, `arch`, `kernel.version`, `driver.binary.version`)."""
    resources: NodeResources
    drivers: tuple[DriverInfo, ...] = ()
    address: str = "127.0.0.1"
    boot_id: str = ""
    version: str = ""
    """The agent's version of Khonsu."""
    protocol: int = 1
    joined_at: Time
    status_at: Time
    """When `status` last changed."""
    drain_deadline_at: Time | None = None
    leaving: bool = False
    """Whether its own agent asked for the drain, before it stops; the next one makes the node eligible again."""
    last_seen: Time | None = None
    """When the control plane last heard of it; known in memory only, and never stored."""

    @property
    def schedulable(self) -> bool:
        """Return whether it may be given work now."""
        return self.status is NodeStatus.READY and self.eligibility is Eligibility.ELIGIBLE

    def attribute(self, name: str) -> str | None:
        """Return an attribute by the name that constraints use, or None where the node has none."""
        if name.startswith("label."):
            return self.labels.get(name[6:])
        if name.startswith("node."):
            return {"node.name": self.name, "node.id": self.id, "node.pool": self.pool}.get(name)
        return self.attributes.get(name)


@frozen(kw_only=True)
class Event(Value):
    """Something that happened. Written with the change that it tells of, never changed; pruned by age and number."""

    id: str
    revision: Revision
    at: Time
    type: str  # job-submitted, allocation-running, node-down, ...
    namespace: str | None = None
    job: str | None = None
    version: int | None = None
    group: str | None = None
    slot: int | None = None
    allocation: AllocationId | None = None
    task: str | None = None
    node: str | None = None
    message: str = ""
    details: Mapping[str, JSON] = field(factory=dict)


@frozen(kw_only=True)
class Credential:
    """A bearer credential. Written by the join of a node and by the first start (operator)."""

    id: str
    role: str  # operator, node
    node: NodeId | None = None
    secret_hash: str = field(repr=False)
    created_at: Time
    expires_at: Time | None = None


@frozen(kw_only=True)
class JoinToken:
    """An invitation for one node. Deleted when it is used. Written by invitations."""

    id: str
    secret_hash: str = field(repr=False)
    name: str | None = None
    labels: Mapping[str, str] = field(factory=dict)
    created_at: Time
    expires_at: Time


@frozen(kw_only=True)
class IdempotencyKey:
    """An answer that is given again for 24 hours. Written with the write that it answers."""

    key: str
    digest: str
    """Of operation and body: another body under the same key is refused."""
    answer: Mapping[str, JSON]
    created_at: Time


@frozen(kw_only=True)
class Setting:
    """A single value of the control plane itself: term, key sequence, cluster id, when pruning ran last."""

    key: str
    value: JSON


Record = (
    JobRecord | JobVersion | Evaluation | Allocation | Node | Event | Credential | JoinToken | IdempotencyKey | Setting
)


@frozen
class Kind:
    """A kind of record, for the store: its key, whether the key is an id (a number in the store), its indexes."""

    name: str
    type: type[Record]
    key: str = "id"
    numbered: bool = False
    indexes: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("job", JobRecord, "key"),
        Kind("job_version", JobVersion, "key", indexes=("job",)),
        Kind("evaluation", Evaluation, numbered=True),
        Kind("allocation", Allocation, numbered=True),
        Kind("node", Node, numbered=True),
        Kind("event", Event, numbered=True, indexes=("job", "node")),
        Kind("credential", Credential),
        Kind("join_token", JoinToken),
        Kind("idempotency_key", IdempotencyKey, "key"),
        Kind("setting", Setting, "key"),
    )
}

KIND_OF: Mapping[type, Kind] = {kind.type: kind for kind in KINDS.values()}


def key_of(record: Record) -> str:
    """Return the key of a record."""
    return str(getattr(record, KIND_OF[type(record)].key))
