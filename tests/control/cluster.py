"""A control plane with a client, and nodes that speak the protocol by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import anyio
from anyio.abc import TaskGroup

from khonsu.abc.store import Store
from khonsu.abc.transport import Connection, Identity, Request
from khonsu.client.client import Client
from khonsu.control.plane import ControlPlane
from khonsu.control.tables import Tables
from khonsu.core.codec import from_json, to_json
from khonsu.core.ids import NodeId
from khonsu.core.job import Job, Resources, Update
from khonsu.core.operations import Role
from khonsu.core.protocol import (
    AllocationReport,
    Assignment,
    JoinRequest,
    JoinResponse,
    NodeFacts,
    SyncRequest,
    SyncResponse,
)
from khonsu.core.records import Allocation, DriverInfo, NodeResources, TaskStatus, Time
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.states import AllocationStatus, Desired, TaskState
from khonsu.core.units import Millis
from khonsu.errors import StoreError
from khonsu.stores.memory import MemoryStore

A = AllocationStatus
Act = Literal["run", "starts", "sick", "fails", "completes", "nothing"]
SCOPES = ("events", "allocations", "nodes", "jobs")
SECONDS_MAX = 15.0
RETRY_SECONDS = 0.05


def service(name: str = "web", *, command: str = "serve", cpu: int = 1000, **fields: Any) -> Job:
    """Return a service of the driver that the nodes here have; its copies take one of four cores."""
    values: dict[str, Any] = {
        "driver": "fake",
        "resources": Resources(cpu=Millis(cpu), memory="64MiB"),
        "disk": "10MiB",
        "update": Update(healthy_for=0.0),
        "env": {"COMMAND": command},
        **fields,
    }
    return Job.single(name, {}, **values)


def batch(name: str = "work", **fields: Any) -> Job:
    """Return a batch job."""
    return service(name, type="batch", **fields)


def facts(**changes: Any) -> NodeFacts:
    """Return what a machine of four cores and 1 GiB of memory tells of itself."""
    values: dict[str, Any] = {
        "resources": NodeResources(cpu_millis=4000, memory_bytes=2**30, disk_bytes=2**34),
        "drivers": (DriverInfo(name="fake"),),
        "attributes": {"os": "linux"},
        "boot_id": "boot",
        "version": "test",
        **changes,
    }
    return NodeFacts(**values)


def usual(assignment: Assignment) -> Act:
    """Return what a good copy does."""
    return "run" if assignment.type.keeps_running else "completes"


class Node:
    """An agent, by hand: `sync` is one request; `run` does what is wanted, as `act` says."""

    def __init__(self, connection: Connection, name: str, node: NodeId, session: str = "session") -> None:
        self.connection = connection
        self.name = name
        self.id = node
        self.session = session
        self.act: Callable[[Assignment], Act] = usual
        self.seen: Revision | None = None
        self.facts: NodeFacts | None = None
        self.have: dict[str, AllocationReport] = {}
        self.wanted: dict[str, Assignment] = {}
        self.most = 0
        """The most copies that ran here at a time."""
        self.last: SyncResponse | None = None
        self.scope = anyio.CancelScope()

    async def sync(self, *reports: AllocationReport, hold: float = 0.0, **changes: Any) -> SyncResponse:
        """Make one request."""
        values: dict[str, Any] = {
            "node": self.id,
            "session": self.session,
            "boot_id": "boot",
            "seen": self.seen,
            "hold_seconds": hold,
            "reports": tuple(self.have.values()) if self.seen is None and not reports else reports,
            "facts": self.facts,
            **changes,
        }
        body = to_json(SyncRequest(**values))
        response = await self.connection.call(Request(operation="node.sync", body=body, deadline_seconds=40.0))
        answer = from_json(SyncResponse, response.body)
        self.last, self.seen = answer, answer.revision
        for key in answer.forget:
            self.have.pop(key, None)
        for assignment in answer.assignments:
            self.wanted[assignment.id] = assignment
        if answer.complete:
            given = {assignment.id for assignment in answer.assignments}
            for gone in [key for key in self.wanted if key not in given]:
                del self.wanted[gone]
                self.have.pop(gone, None)
        return answer

    async def work(self, *, hold: float = 0.0) -> list[AllocationReport]:
        """Make a request, do what is wanted, and report it."""
        answer = await self.sync(hold=hold)
        done: list[AllocationReport] = []
        while reports := [report for one in answer.assignments if (report := self._do(one)) is not None]:
            self.have.update({report.id: report for report in reports})
            self.most = max(self.most, sum(one.status is A.RUNNING for one in self.have.values()))
            done += reports
            answer = await self.sync(*reports)
        return done

    def _do(self, assignment: Assignment) -> AllocationReport | None:
        have = self.have.get(assignment.id)
        if have is not None and have.status.terminal:
            return have
        if assignment.desired is Desired.STOP:
            return report(assignment, A.STOPPED)
        return act(assignment, self.act(assignment))

    async def run(self) -> None:
        """Work until cancelled or killed."""
        with self.scope:
            while True:
                try:
                    await self.work(hold=3.0)
                except StoreError:
                    self.seen = None
                    await anyio.sleep(RETRY_SECONDS)

    def kill(self) -> None:
        """Fall silent."""
        self.scope.cancel()
        self.scope = anyio.CancelScope()

    async def leave(self, **fields: Any) -> None:
        """Say goodbye."""
        await self.connection.call(Request(operation="node.leave", body={"node": self.id, **fields}))


def act(assignment: Assignment, what: Act) -> AllocationReport | None:
    """Return what an agent says of a copy."""
    match what:
        case "run":
            return report(assignment, A.RUNNING, health=True)
        case "starts":
            return report(assignment, A.STARTING)
        case "sick":
            return report(assignment, A.RUNNING, health=False, message="it is sick")
        case "fails":
            return report(assignment, A.FAILED, health=False, code=1)
        case "completes":
            return report(assignment, A.COMPLETE, code=0)
        case "nothing":
            return None


TASKS = {
    A.STARTING: TaskState.PREPARING,
    A.RUNNING: TaskState.RUNNING,
    A.STOPPED: TaskState.STOPPED,
    A.FAILED: TaskState.FAILED,
    A.COMPLETE: TaskState.COMPLETE,
}


def report(
    of: Assignment | Allocation,
    status: AllocationStatus,
    *,
    health: bool | None = None,
    code: int | None = None,
    message: str = "",
) -> AllocationReport:
    """Return a report of a copy with one task."""
    task = TaskStatus(name=of.job, status=TASKS[status], attempt=1, exit_code=code, started_at=Time(1.0))
    return AllocationReport(
        id=of.id, generation=of.generation, status=status, health=health, tasks=(task,), message=message
    )


class Cluster:
    """A control plane, a client of it, and ways to it."""

    def __init__(self, plane: ControlPlane, client: Client, group: TaskGroup, stack: AsyncExitStack) -> None:
        self.plane = plane
        self.client = client
        self.group = group
        self.stack = stack

    @property
    def tables(self) -> Tables:
        """Return what the control plane holds in memory."""
        return self.plane.parts.state.tables

    async def connect(self, credential: Secret | str | None = None) -> Connection:
        """Return a connection: with a credential, or as an agent in this process that may join."""
        identity = None if credential is None else Identity(credential=Secret.of(credential))
        return await self.stack.enter_async_context(self.plane.transport().connect(identity))

    async def operator(self) -> Connection:
        """Return a connection of an operator of this process."""
        return await self.connect(self.plane.parts.gate.local(Role.OPERATOR))

    async def joined(self, name: str, token: Secret | str | None = None, **changes: Any) -> JoinResponse:
        """Join a node and return its identity."""
        request = JoinRequest(name=name, facts=facts(**changes))
        connection = await self.connect(token)
        response = await connection.call(Request(operation="node.join", body=to_json(request)))
        return from_json(JoinResponse, response.body)

    async def node(self, name: str, token: Secret | str | None = None, **changes: Any) -> Node:
        """Join a node that has said nothing yet."""
        made = await self.joined(name, token, **changes)
        return Node(await self.connect(made.credential), name, made.node)

    async def running(self, *names: str, **changes: Any) -> list[Node]:
        """Join nodes that work in the background."""
        nodes = [await self.node(name, **changes) for name in names]
        for node in nodes:
            await node.work()
            self.group.start_soon(node.run)
        return nodes

    def copies(self, job: str = "web", *statuses: AllocationStatus) -> list[Allocation]:
        """Return the copies of a job with these statuses; without any, the live ones."""
        found = self.tables.allocations_of(f"default/{job}")
        return [one for one in found if (one.status in statuses if statuses else one.live)]

    async def until(self, condition: Callable[[], object], *, seconds: float = SECONDS_MAX) -> None:
        """Wait until something holds in what is durable."""
        state = self.plane.parts.state
        with anyio.fail_after(seconds):
            while True:
                scopes = (*SCOPES, *(f"job:{job}" for job in self.tables.jobs))
                await state.wait_until(lambda: bool(condition()), *scopes)
                try:
                    await state.settled()
                except StoreError:
                    # What held was undone.
                    await anyio.sleep(RETRY_SECONDS)
                else:
                    return

    async def until_copies(self, job: str, count: int, status: AllocationStatus = A.RUNNING) -> list[Allocation]:
        """Wait until a job has so many copies with a status, and return them."""
        await self.until(lambda: len(self.copies(job, status)) == count)
        return self.copies(job, status)

    async def events(self, *types: str, **wanted: Any) -> list[tuple[str, str]]:
        """Return the types and messages of what has happened."""
        async with self.client.events(types=types, follow=False, **wanted) as events:
            return [(event.type, event.message) async for event in events]


@asynccontextmanager
async def cluster(store: Store | None = None, **options: Any) -> AsyncGenerator[Cluster, None]:
    """Run a control plane; what it runs is ended with the block."""
    plane = ControlPlane(store=store if store is not None else MemoryStore(), **options)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(plane)
        client = await stack.enter_async_context(plane.client())
        connections = await stack.enter_async_context(AsyncExitStack())
        group = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(group.cancel_scope.cancel)
        yield Cluster(plane, client, group, connections)


def nodes_of(copies: Iterable[Allocation]) -> list[str]:
    """Return the names of the nodes that copies are on, sorted."""
    return sorted(one.node for one in copies)
