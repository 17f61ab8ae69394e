"""A small control plane for the tests of the agent: it hands out what the test says, and keeps what it is told."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from khonsu.abc.transport import ByteStream, Handler, Request, Response
from khonsu.core.codec import from_json, to_json
from khonsu.core.ids import NodeId
from khonsu.core.job import Group
from khonsu.core.protocol import (
    AgentRequest,
    AllocationReport,
    Assignment,
    JoinRequest,
    JoinResponse,
    NodeFacts,
    SyncRequest,
    SyncResponse,
)
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.states import AllocationStatus, Desired
from khonsu.errors import Conflict, KhonsuError, NotAllowed, NotFound, Unauthenticated, Unreachable
from khonsu.transports.inprocess import InProcessTransport

TIME_SECONDS_MAX = 20.0


class Desk(Handler):
    """Hands out assignments and takes reports; `changed` is set whenever something is told."""

    def __init__(self, group: TaskGroup | None = None) -> None:
        self.group = group
        self.term = 1
        self.cluster = "c"
        self.number = 1
        self.up = True
        self.lease_seconds = 10.0
        self.interval_seconds = 3.0
        self.wanted: dict[str, tuple[Assignment, int]] = {}
        self.groups: dict[str, Group] = {}
        self.reports: dict[str, AllocationReport] = {}
        self.history: list[AllocationReport] = []
        self.syncs: list[SyncRequest] = []
        self.facts: list[NodeFacts] = []
        self.nodes: dict[str, str] = {}
        self.tokens = {"invited"}
        self.session: str | None = None
        self.replaced: set[str] = set()
        self.requests: list[AgentRequest] = []
        self.streams: dict[str, list[bytes]] = {}
        self.left: list[Mapping[str, Any]] = []
        self.draining = False
        self.fail_next: KhonsuError | None = None
        self.lost_answers = 0
        """How many of the next answers that ask for something are lost on the way."""
        self.changed = anyio.Event()

    def transport(self, token: str | None = "invited") -> InProcessTransport:
        """Return a way here, which can join unless there is no token."""
        return InProcessTransport(self, credential=Secret(token) if token is not None else None, task_group=self.group)

    # What the test does.

    def assign(self, assignment: Assignment, group: Group) -> None:
        """Want an allocation."""
        self.number += 1
        self.groups[assignment.group] = group
        self.wanted[assignment.id] = (assignment, self.number)
        self.notify()

    def stop(self, key: str) -> None:
        """Want an allocation no more."""
        assignment, _ = self.wanted[key]
        self.number += 1
        stopped = from_json(Assignment, {**to_json(assignment), "desired": Desired.STOP.value})
        self.wanted[key] = (stopped, self.number)
        self.notify()

    def ask(self, key: str, **parameters: Any) -> None:
        """Ask the agent for logs; `streams[key]` is what it sends."""
        self.requests.append(AgentRequest(id=key, operation="logs", parameters=parameters))
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits."""
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something was told."""
        with anyio.fail_after(TIME_SECONDS_MAX):
            while not condition():
                await self.changed.wait()

    async def until_status(self, key: str, status: AllocationStatus) -> AllocationReport:
        """Wait until an allocation is reported in a status."""
        await self.until(lambda: self.status(key) is status)
        return self.reports[key]

    def status(self, key: str) -> AllocationStatus | None:
        """Return the last status that was told."""
        report = self.reports.get(key)
        return report.status if report is not None else None

    # What the agent sees.

    async def call(self, request: Request, /) -> Response:
        """Serve a request."""
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        serve = {"node.join": self._join, "node.sync": self._sync, "node.leave": self._leave}[request.operation]
        body = await serve(request)
        if self.lost_answers and body.get("requests"):
            self.lost_answers -= 1
            raise Unreachable("the control plane", "the answer was lost")
        return Response(body=body)

    async def _join(self, request: Request) -> Any:
        token = request.credential.reveal() if request.credential is not None else None
        if token not in self.tokens:
            raise Unauthenticated("the join token was used")
        self.tokens.discard(str(token))
        asked = from_json(JoinRequest, request.body)
        node = f"node{len(self.nodes)}"
        self.nodes[node] = credential = f"credential-{node}"
        return to_json(
            JoinResponse(
                node=NodeId(node), name=asked.name, cluster=self.cluster, credential=credential, term=self.term
            )
        )

    async def _sync(self, request: Request) -> Any:
        asked = from_json(SyncRequest, request.body)
        self._admit(request, asked.node)
        if asked.session in self.replaced:
            raise Conflict("another agent has taken the place of this one", hint="stop one")
        if self.session not in (None, asked.session):
            self.replaced.add(str(self.session))
        self.session = asked.session
        self.syncs.append(asked)
        if asked.facts is not None:
            self.facts.append(asked.facts)
        for report in asked.reports:
            self.reports[report.id] = report
            self.history.append(report)
            if report.status.terminal:
                self.wanted.pop(report.id, None)
        self.requests = [one for one in self.requests if one.id not in asked.taken]
        self.notify()
        seen = asked.seen
        if seen is not None and seen.term == self.term and not asked.reports:
            with anyio.move_on_after(asked.hold_seconds):
                while seen.number >= self.number and not self.requests:
                    await self.changed.wait()
        if asked.session != self.session:
            raise Conflict("another agent has taken the place of this one")
        complete = seen is None or seen.term != self.term
        number = 0 if complete or seen is None else seen.number
        wanted = [assignment for assignment, at in self.wanted.values() if at > number]
        return to_json(
            SyncResponse(
                term=self.term,
                revision=Revision(self.term, self.number),
                lease_seconds=self.lease_seconds,
                interval_seconds=self.interval_seconds,
                complete=complete,
                assignments=tuple(wanted),
                groups={assignment.group: self.groups[assignment.group] for assignment in wanted},
                forget=tuple(report.id for report in asked.reports if report.status.terminal),
                requests=tuple(self.requests),
                draining=self.draining,
            )
        )

    async def _leave(self, request: Request) -> Any:
        self._admit(request, request.body["node"])
        self.left.append({**request.body, "after": len(self.syncs)})
        if request.body.get("drain"):
            self.draining = True
            for key in list(self.wanted):
                self.stop(key)
        return {}

    def _admit(self, request: Request, node: str) -> None:
        credential = request.credential.reveal() if request.credential is not None else None
        if credential not in self.nodes.values():
            raise Unauthenticated("this needs a valid credential")
        if self.nodes.get(node) != credential:
            raise NotAllowed("that is another node")

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Take a stream."""
        key = request.body["id"]
        if key == "gone":
            raise NotFound("stream", key)
        received = self.streams.setdefault(key, [])
        yield Sink(received, self)
        received.append(b"END")
        self.notify()

    def lines(self, key: str) -> list[Any]:
        """Return the lines of a stream that has ended."""
        data = b"".join(self.streams[key])
        assert data.endswith(b"END")
        return [json.loads(line) for line in data.removesuffix(b"END").splitlines()]

    def server_context(self, hosts: Sequence[str], /) -> ssl.SSLContext:
        """Refuse."""
        raise NotImplementedError

    def metrics(self) -> str:
        """Return nothing."""
        return ""

    def ready(self) -> bool:
        """Return whether it can be reached."""
        return self.up


class Sink(ByteStream):
    """Keeps what is sent."""

    def __init__(self, received: list[bytes], desk: Desk) -> None:
        self.received = received
        self.desk = desk

    async def receive(self) -> bytes:
        """Refuse."""
        raise NotImplementedError

    async def send(self, data: bytes, /) -> None:
        """Keep some bytes."""
        self.received.append(data)
        self.desk.notify()
