"""Nodes without machines: they join, renew and report as an agent does, and run nothing."""

from __future__ import annotations

import time

from attrs import define, field

from khonsu.abc.transport import Connection, Request
from khonsu.core.codec import from_json, to_json
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.protocol import (
    AllocationReport,
    JoinRequest,
    JoinResponse,
    NodeFacts,
    SyncRequest,
    SyncResponse,
)
from khonsu.core.records import DriverInfo, NodeResources, TaskStatus, Time
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.states import AllocationStatus, Desired, TaskState

CPU_MILLIS = 14_000
MEMORY_BYTES = 32_000 * 10**6
DISK_BYTES = 100_000 * 10**6
DATACENTERS = 2
RACKS = 50
BOOT_ID = "bench"


def facts(number: int) -> NodeFacts:
    """Return what the agent of such a node finds out."""
    return NodeFacts(
        labels={"rack": f"r{number % RACKS}", "datacenter": f"dc{number % DATACENTERS}"},
        attributes={"os": "linux", "arch": "amd64"},
        resources=NodeResources(cpu_millis=CPU_MILLIS, memory_bytes=MEMORY_BYTES, disk_bytes=DISK_BYTES),
        drivers=(DriverInfo(name="binary", version="1"),),
        boot_id=BOOT_ID,
        version="0",
    )


@define(eq=False)
class Machine:
    """One such node, over a connection."""

    connection: Connection
    node: NodeId
    credential: Secret
    seen: Revision | None = None
    interval_seconds: float = 3.0
    runs: dict[AllocationId, int] = field(factory=dict)
    """The generation of each allocation that it pretends to run."""

    @classmethod
    async def join(cls, connection: Connection, number: int, *, token: Secret | None = None) -> Machine:
        """Become a node."""
        body = to_json(JoinRequest(name=f"node-{number}", facts=facts(number)))
        answer = await connection.call(Request(operation="node.join", body=body, credential=token))
        joined = from_json(JoinResponse, answer.body)
        return cls(connection, joined.node, Secret(joined.credential))

    async def sync(self, *, hold_seconds: float = 0.0, reports: tuple[AllocationReport, ...] = ()) -> SyncResponse:
        """Renew the lease, report, and take note of what is wanted."""
        request = SyncRequest(
            node=self.node,
            session=self.node,
            boot_id=BOOT_ID,
            seen=self.seen,
            hold_seconds=hold_seconds,
            reports=reports,
        )
        call = Request(operation="node.sync", body=to_json(request), credential=self.credential)
        response = from_json(SyncResponse, (await self.connection.call(call)).body)
        self.seen = response.revision
        self.interval_seconds = response.interval_seconds
        return response

    def start(self, response: SyncResponse) -> tuple[AllocationReport, ...]:
        """Pretend to start what is new, and return what there is to say of it."""
        new = [
            assignment
            for assignment in response.assignments
            if assignment.desired is Desired.RUN and assignment.id not in self.runs
        ]
        self.runs |= {assignment.id: assignment.generation for assignment in new}
        running = TaskStatus(name="bench", status=TaskState.RUNNING, attempt=1, started_at=Time(time.time()))
        return tuple(
            AllocationReport(
                id=assignment.id,
                generation=assignment.generation,
                status=AllocationStatus.RUNNING,
                health=True,
                tasks=(running,),
            )
            for assignment in new
        )
