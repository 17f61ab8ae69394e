"""What an agent and a control plane say to each other.

`PROTOCOL` grows when a message changes its meaning; both sides accept one version of skew. Unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.job import JSON, Group
from khonsu.core.records import DriverInfo, NodeResources, PortAssignment, TaskStatus, Time
from khonsu.core.revision import Revision
from khonsu.core.states import AllocationStatus, Desired, JobType

PROTOCOL = 1
TAIL_LINES_MAX = 10_000
"""How many of the last lines of a task's output may be asked for; they are held in memory."""


def speaks(protocol: int) -> bool:
    """Return whether this version understands a peer's protocol number: one version of skew."""
    return abs(protocol - PROTOCOL) <= 1


@frozen(kw_only=True)
class NodeFacts:
    """What an agent finds out about its machine."""

    labels: Mapping[str, str] = field(factory=dict)
    attributes: Mapping[str, str] = field(factory=dict)
    resources: NodeResources
    drivers: tuple[DriverInfo, ...] = ()
    address: str = "127.0.0.1"
    boot_id: str
    version: str
    protocol: int = PROTOCOL
    pool: str = "default"


@frozen(kw_only=True)
class JoinRequest:
    """An agent asks to become a node; the request's credential is a join token."""

    name: str
    facts: NodeFacts


@frozen(kw_only=True)
class JoinResponse:
    """The identity of the new node. `credential` is shown once."""

    node: NodeId
    name: str
    cluster: str
    credential: str = field(repr=False)
    term: int
    protocol: int = PROTOCOL


@frozen(kw_only=True)
class AllocationReport:
    """What an agent says of one allocation: the whole of it, every time, so that a repeat does no harm."""

    id: AllocationId
    generation: int
    status: AllocationStatus
    health: bool | None = None
    tasks: tuple[TaskStatus, ...] = ()
    message: str = ""


@frozen(kw_only=True)
class SyncRequest:
    """Renew the lease, report, and ask for what changed.

    `session` is new with every start of the agent. `seen` is the revision up to which it knows what is wanted; None
    asks for everything, and then `reports` holds every allocation that the agent has. `hold_seconds` is how long the
    answer may wait for a change. `facts` are sent with the first sync of a session and when they change. `taken` are
    the ids of the requests that came with an answer; until then each answer brings them again.
    """

    node: NodeId
    session: str
    boot_id: str
    protocol: int = PROTOCOL
    seen: Revision | None = None
    hold_seconds: float = 0.0
    reports: tuple[AllocationReport, ...] = ()
    facts: NodeFacts | None = None
    taken: tuple[str, ...] = ()


@frozen(kw_only=True)
class Assignment:
    """One allocation as its node is to know it. `group` names an entry of `SyncResponse.groups`."""

    id: AllocationId
    namespace: str
    job: str
    version: int
    type: JobType
    group: str
    slot: int
    generation: int
    ports: tuple[PortAssignment, ...] = ()
    desired: Desired
    meta: Mapping[str, str] = field(factory=dict)
    """The job's meta."""
    previous: AllocationId | None = None


@frozen(kw_only=True)
class AgentRequest:
    """Something the control plane wants of an agent, answered by an outbound stream (`node.stream`).

    It may come more than once; the `id` tells.
    """

    id: str
    operation: str  # logs
    parameters: Mapping[str, JSON] = field(factory=dict)


@frozen(kw_only=True)
class SyncResponse:
    """The lease and what changed.

    The agent counts the lease from when it *sent* the request. With `complete`, `assignments` are all that the node
    should have, and an allocation that is not among them is to be stopped and forgotten; otherwise they are what
    changed since `seen`. `forget` are allocations whose end has been recorded. With `tell_all` the agent is to report
    every allocation again: the control plane took it for silent, and does not know what has become of them.
    """

    term: int
    revision: Revision
    lease_seconds: float
    interval_seconds: float
    complete: bool = False
    assignments: tuple[Assignment, ...] = ()
    groups: Mapping[str, Group] = field(factory=dict)
    forget: tuple[AllocationId, ...] = ()
    requests: tuple[AgentRequest, ...] = ()
    protocol: int = PROTOCOL
    draining: bool = False
    tell_all: bool = False


@frozen(kw_only=True)
class LogLine:
    """One line of a task's output. `at` is when it was read from the task, to about a tenth of a second."""

    allocation: AllocationId
    task: str
    stream: str  # stdout, stderr
    text: str
    at: Time
