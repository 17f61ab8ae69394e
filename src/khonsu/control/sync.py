"""The one request of an agent: it renews the lease, brings reports, and takes home what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import anyio
from attrs import evolve

from khonsu.control.batch import Batch
from khonsu.control.calls import NAME_LENGTH_MAX, Call
from khonsu.control.leases import Leases
from khonsu.control.nodes import Nodes, protocol_message, refuse, with_facts
from khonsu.control.sessions import Session, Sessions
from khonsu.control.state import State
from khonsu.core.codec import from_json, to_json
from khonsu.core.facts import check_boot_id, check_facts
from khonsu.core.ids import AllocationId
from khonsu.core.job import Group
from khonsu.core.leases import LeaseTerms
from khonsu.core.protocol import Assignment, SyncRequest, SyncResponse, speaks
from khonsu.core.records import Allocation, Node
from khonsu.core.reports import apply_report, believed, lost, needs_look, report_events
from khonsu.core.states import NODE, AllocationStatus, Desired, Eligibility, NodeStatus
from khonsu.errors import Conflict, Problem, Unauthenticated

HOLD_SECONDS_MAX = 30.0


class Sync:
    """Serves `node.sync` and `node.leave`."""

    def __init__(self, state: State, nodes: Nodes, sessions: Sessions, leases: Leases) -> None:
        """Work on a state."""
        self._state = state
        self._nodes = nodes
        self._sessions = sessions
        self._leases = leases

    async def sync(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.sync`."""
        received = self._state.env.monotonic()
        request = from_json(SyncRequest, call.body)
        node = self._node(call)
        if not speaks(request.protocol):
            raise Conflict(protocol_message(request.protocol))
        refuse(list(_mistakes(request)))
        session = self._sessions.heard(node.id, request.session, self._state.now(), fresh=request.seen is None)
        session.begun = session.begun or request.seen is not None
        for key in request.taken:
            session.requests.pop(key, None)
        # The lease is renewed before anything is written: a slow disk expires nobody.
        terms = self._leases.renew(node.id, received)
        batch = self._state.batch()
        self._take(batch, node, request, first=request.seen is None and not session.begun)
        if batch.changes or batch.looks:
            self._state.apply(batch)
        await self._hold(node, request, session)
        response = self._response(node, request, session, terms)
        await self._state.settled()
        answer: Mapping[str, Any] = to_json(response)
        return answer

    async def leave(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.leave`: the agent runs nothing any more, so that its node is down at once.

        With `drain` it is still there, and asks that its work be moved elsewhere first.
        """
        node = self._node(call)
        if (session := call.optional_text("session")) is not None:
            self._sessions.check(node.id, session)
        batch = self._state.batch()
        if call.flag("drain"):
            # What an operator drained has nothing to move, and stays drained when the agent comes back.
            if node.eligibility is Eligibility.ELIGIBLE:
                self._nodes.start_drain(batch, node, None, leaving=True)
        elif node.status is NodeStatus.READY:
            self._nodes.lose_contact(batch, node, "its agent left")
            self._leases.book.end(node.id)
        if batch.changes:
            await self._state.commit(batch)
        return {}

    def _node(self, call: Call) -> Node:
        node = self._state.tables.nodes.get(call.own_node())
        if node is None:
            raise Unauthenticated("this node was removed", hint="join it again with a new token")
        return node

    # Taking what the agent says.

    def _take(self, batch: Batch, node: Node, request: SyncRequest, *, first: bool) -> None:
        """Gather what a request changes; `first` says whether it begins a run of the agent."""
        tables = self._state.tables
        # One for each allocation: two of one request would both be held against what is known before it.
        reported = {report.id: report for report in request.reports}
        for report in reported.values():
            allocation = tables.allocations.get(report.id)
            if allocation is not None and allocation.node_id == node.id and allocation.live:
                told = believed(report, {task.name for task in tables.group(allocation).tasks})
                self._move(batch, allocation, apply_report(allocation, told, batch.now))
        rebooted = request.boot_id != node.boot_id
        if first:
            # The agent has just started and told all that it has: what it does not know of did not survive.
            for allocation in tables.allocations_on(node.id):
                if allocation.id not in reported and _was_started(allocation):
                    reason = "the machine was started anew" if rebooted else "its agent does not know it any more"
                    self._move(batch, allocation, lost(allocation, batch.now, reason))
        self._refresh(batch, node, request)

    def _move(self, batch: Batch, before: Allocation, after: Allocation | None) -> None:
        """Gather the change of one allocation, with its events, and have its job looked at where that is due."""
        if after is None or after == before:
            return
        batch.put(after)
        for event in report_events(before, after):
            batch.event(event.type, event.message, allocation=after, task=event.task, details=event.details)
        if (trigger := needs_look(before, after)) is not None:
            batch.evaluate(after.job_key, trigger)

    def _refresh(self, batch: Batch, node: Node, request: SyncRequest) -> None:
        """Gather what is new about the node itself."""
        fresh = node if request.facts is None else with_facts(node, request.facts)
        if fresh.boot_id != request.boot_id:
            fresh = evolve(fresh, boot_id=request.boot_id)
        if node.leaving and request.seen is None:
            fresh = evolve(fresh, eligibility=Eligibility.ELIGIBLE, drain_deadline_at=None, leaving=False)
        if node.status is NodeStatus.DOWN:
            fresh = evolve(fresh, status=NODE.step(node.status, "renew"), status_at=batch.now)
            batch.event("node-ready", "it was heard of again", node=node)
            for allocation in self._state.tables.allocations_on(node.id):
                if allocation.live:
                    batch.evaluate(allocation.job_key, "node-ready")
        if fresh is not node and fresh != node:
            batch.put(fresh)
            self._nodes.look_at_system_jobs(batch)

    # Answering.

    async def _hold(self, node: Node, request: SyncRequest, session: Session) -> None:
        """Wait until there is something to tell, or the agent wants to renew."""
        seen = request.seen
        if seen is None or seen.term != self._state.term or request.reports or not request.hold_seconds:
            return
        scope = f"assign:{node.id}"
        with anyio.move_on_after(min(request.hold_seconds, HOLD_SECONDS_MAX)):
            await self._state.wait_until(lambda: bool(session.requests) or self._state.newer(seen, scope), scope)

    def _response(self, node: Node, request: SyncRequest, session: Session, terms: LeaseTerms) -> SyncResponse:
        tables = self._state.tables
        seen = request.seen
        head = self._state.closed
        complete = seen is None or seen.term != head.term or seen > head
        number = 0 if complete or seen is None else seen.number
        wanted = tables.allocations.assigned(node.id, -1 if complete else number)
        if complete:
            wanted = [one for one in wanted if one.live]
        return SyncResponse(
            term=head.term,
            revision=head,
            lease_seconds=terms.ttl_seconds,
            interval_seconds=terms.interval_seconds,
            complete=complete,
            assignments=(*(self._assignment(allocation) for allocation in wanted), *self._orphans(node, request)),
            groups=self._groups(wanted),
            forget=tuple(
                report.id for report in request.reports if report.status.terminal and self._recorded(report.id)
            ),
            requests=tuple(session.requests.values()),
            draining=tables.nodes[node.id].eligibility is Eligibility.DRAINING if node.id in tables.nodes else False,
            tell_all=self._asks(node, session, terms),
        )

    def _asks(self, node: Node, session: Session, terms: LeaseTerms) -> bool:
        """Return whether the agent is to tell of all that it has: of some of it nobody knows what it does.

        It is asked once in a while: what is being prepared or stopped stays unknown however often it is told of.
        """
        now = self._state.env.monotonic()
        asks = self._state.tables.allocations.unknown(node.id) and now - session.asked_at >= terms.interval_seconds
        if asks:
            session.asked_at = now
        return asks

    def _orphans(self, node: Node, request: SyncRequest) -> Iterable[Assignment]:
        """Yield what the agent says runs, and is given up here: it is told to stop it."""
        for report in request.reports:
            allocation = self._state.tables.allocations.get(report.id)
            if allocation is None or allocation.node_id != node.id:
                continue
            if allocation.status.terminal and not report.status.terminal:
                yield evolve(self._assignment(allocation), desired=Desired.STOP)

    def _recorded(self, key: AllocationId) -> bool:
        allocation = self._state.tables.allocations.get(key)
        return allocation is None or allocation.status.terminal

    def _assignment(self, allocation: Allocation) -> Assignment:
        spec = self._state.tables.spec(allocation.job_key, allocation.version)
        return Assignment(
            id=allocation.id,
            namespace=allocation.namespace,
            job=allocation.job,
            version=allocation.version,
            type=spec.type,
            group=_group_key(allocation),
            slot=allocation.slot,
            generation=allocation.generation,
            ports=allocation.ports,
            desired=allocation.desired,
            meta=spec.meta,
            previous=allocation.previous,
        )

    def _groups(self, allocations: Iterable[Allocation]) -> dict[str, Group]:
        groups: dict[str, Group] = {}
        for allocation in allocations:
            key = _group_key(allocation)
            if key not in groups:
                groups[key] = self._state.tables.group(allocation)
        return groups


def _mistakes(request: SyncRequest) -> Iterator[Problem]:
    """Yield what of a request is too much to be remembered."""
    yield from check_boot_id(request.boot_id)
    if len(request.session) > NAME_LENGTH_MAX:
        yield Problem("session", f"{len(request.session)} letters", f"at most {NAME_LENGTH_MAX} letters")
    if request.facts is not None:
        yield from check_facts(request.facts)


def _group_key(allocation: Allocation) -> str:
    return f"{allocation.namespace}/{allocation.job}/{allocation.version}/{allocation.group}"


def _was_started(allocation: Allocation) -> bool:
    """Return whether the agent must know of an allocation: it has said so before."""
    return allocation.live and (allocation.status is not AllocationStatus.PENDING) and bool(allocation.tasks)
