"""Nodes: joining, and what operators do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from khonsu.control.batch import Batch
from khonsu.control.calls import Call
from khonsu.control.find import only_one
from khonsu.control.gate import Gate
from khonsu.control.sessions import Sessions
from khonsu.control.state import State
from khonsu.core.codec import from_json, to_json
from khonsu.core.facts import check_facts
from khonsu.core.ids import NodeId
from khonsu.core.names import check_labels, check_name, nearest
from khonsu.core.operations import Role
from khonsu.core.protocol import PROTOCOL, JoinRequest, JoinResponse, NodeFacts, speaks
from khonsu.core.records import JoinToken, Node, Time
from khonsu.core.reports import lost
from khonsu.core.results import Invitation
from khonsu.core.states import ALLOCATION, NODE, AllocationStatus, Eligibility, NodeStatus
from khonsu.core.units import DurationLike, seconds
from khonsu.errors import Conflict, InvalidRequest, Problem, Unauthenticated
from khonsu.security.fingerprint import Fingerprint
from khonsu.security.tokens import JoinToken as Invited

INVITATION_SECONDS_MAX = 7 * 86400.0
PROBLEMS_TOLD_MAX = 20


def with_facts(node: Node, facts: NodeFacts) -> Node:
    """Return a node with what its agent found out."""
    return evolve(
        node,
        labels={**facts.labels, **node.granted_labels},
        attributes=dict(facts.attributes),
        resources=facts.resources,
        drivers=facts.drivers,
        address=facts.address,
        pool=facts.pool,
        version=facts.version,
        protocol=facts.protocol,
    )


class Nodes:
    """The operations on nodes, but for the agents' `sync`."""

    def __init__(self, state: State, gate: Gate, sessions: Sessions, authority: Fingerprint) -> None:
        """Work on a state."""
        self._state = state
        self._gate = gate
        self._sessions = sessions
        self._authority = authority

    def find(self, name: str) -> Node:
        """Return a node by its name, its id or a prefix of it that no other has.

        Raises:
            NotFound: There is none.
            Conflict: There are several.

        """
        tables = self._state.tables
        node = tables.node_named(name)
        if node is None:
            matches = [node for node in tables.nodes.values() if node.id.startswith(name.lower())]
            node = only_one("node", name, matches, nearest=nearest(name, tables.node_ids))
        return self.seen(node)

    def seen(self, node: Node) -> Node:
        """Return a node with when it was last heard of."""
        session = self._sessions.get(node.id)
        return evolve(node, last_seen=session.last_seen) if session is not None else node

    def invite(self, *, name: str | None, labels: Mapping[str, str], valid: DurationLike) -> tuple[Batch, Invitation]:
        """Return an invitation, and the batch that makes it valid.

        Raises:
            InvalidRequest: The name, a label or the time is none that an invitation can have.

        """
        try:
            length = seconds(valid)
        except ValueError as error:
            raise InvalidRequest(f"valid: {error}") from None
        if not 0 < length <= INVITATION_SECONDS_MAX:
            raise InvalidRequest(f"valid: found {valid!r}, expected a time of at most 7 days")
        refuse([*([] if name is None else check_name(name, "name")), *check_labels(labels, "labels")])
        token = Invited.new(self._authority, self._state.env.token_bytes)
        batch = self._state.batch()
        expires = Time(batch.now + length)
        batch.put(
            JoinToken(
                id=token.id,
                secret_hash=token.digest(),
                name=name,
                labels=dict(labels),
                created_at=batch.now,
                expires_at=expires,
            )
        )
        batch.event("node-invited", node=name)
        return batch, Invitation(token=token.text().reveal(), name=name, labels=dict(labels), expires_at=expires)

    async def invite_call(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.invite`."""
        labels = call.mapping("labels") if call.body.get("labels") is not None else {}
        batch, invitation = self.invite(
            name=call.optional_text("node_name"), labels=labels, valid=call.number("valid_seconds", 900.0)
        )
        await self._state.commit(batch)
        answer: Mapping[str, Any] = to_json(invitation)
        return answer

    async def join(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.join`: make a node of whoever holds a join token, once."""
        request = from_json(JoinRequest, call.body)
        batch = self._state.batch()
        invited = self._invited(call)
        self._check_join(request, invited)
        if (earlier := self._namesake(request.name)) is not None:
            self.end(batch, earlier, "replaced by a node that joined under its name")
        node = with_facts(
            Node(
                id=NodeId(self._state.new_id()),
                name=request.name,
                granted_labels=dict(invited.labels) if invited is not None else {},
                resources=request.facts.resources,
                joined_at=batch.now,
                status_at=batch.now,
                boot_id=request.facts.boot_id,
            ),
            request.facts,
        )
        if invited is not None:
            batch.delete("join_token", invited.id)
        credential = self._gate.issue(batch, Role.NODE, node.id)
        batch.put(node)
        batch.event("node-joined", node=node)
        self.look_at_system_jobs(batch)
        await self._state.commit(batch)
        answer: Mapping[str, Any] = to_json(
            JoinResponse(
                node=node.id,
                name=node.name,
                cluster=str(self._state.tables.settings["cluster"].value),
                credential=credential.reveal(),
                term=self._state.term,
                protocol=PROTOCOL,
            )
        )
        return answer

    def _invited(self, call: Call) -> JoinToken | None:
        """Return the invitation of a caller; None for an agent of this process, which needs none."""
        if call.caller.join_token is None:
            return None
        invited = self._state.tables.join_tokens.get(call.caller.join_token)
        if invited is None:  # used by another request since this one was admitted
            raise Unauthenticated("the join token was used", hint="make a new one with `khonsu node invite`")
        return invited

    def _check_join(self, request: JoinRequest, invited: JoinToken | None) -> None:
        refuse([*check_name(request.name, "name"), *check_facts(request.facts)])
        if not speaks(request.facts.protocol):
            raise Conflict(protocol_message(request.facts.protocol))
        if invited is not None and invited.name is not None and invited.name != request.name:
            raise Conflict(f"the join token is for a node named {invited.name}, not {request.name}")
        earlier = self._namesake(request.name)
        if earlier is not None and earlier.status is NodeStatus.READY:
            raise Conflict(
                f"a node named {request.name} is ready",
                hint="choose another name, or stop that agent and wait until its node is down",
            )

    def _namesake(self, name: str) -> Node | None:
        """Return the node of a name; unlike for operators, the id of another does not count as its name."""
        tables = self._state.tables
        return tables.nodes.get(tables.node_ids.get(name, NodeId("")))

    def look_at_system_jobs(self, batch: Batch) -> None:
        """Have the jobs looked at that want a copy on every node."""
        for job in self._state.tables.jobs.values():
            if job.type.everywhere and not job.stopped:
                batch.evaluate(job.key, "node-ready")

    async def drain(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.drain`."""
        node = self.find(call.text("name"))
        batch = self._state.batch()
        changed = self.start_drain(batch, node, Time(batch.now + call.number("deadline_seconds", 600.0)))
        answer = call.answer(batch, self.seen(changed))
        await self._state.commit(batch)
        return answer

    async def undrain(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.undrain`."""
        node = self.find(call.text("name"))
        batch = self._state.batch()
        changed = evolve(node, eligibility=Eligibility.ELIGIBLE, drain_deadline_at=None, leaving=False, last_seen=None)
        if node.eligibility is not Eligibility.ELIGIBLE:
            batch.put(changed)
            batch.event("node-eligible", node=node)
            self._look_at_jobs_on(batch, node, "undrain")
            self.look_at_system_jobs(batch)
        answer = call.answer(batch, self.seen(changed))
        await self._state.commit(batch)
        return answer

    async def remove(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.remove`: only of a node that is down."""
        node = self.find(call.text("name"))
        if node.status is NodeStatus.READY:
            raise Conflict(f"node {node.name} is ready", hint="stop its agent and wait until the node is down")
        batch = self._state.batch()
        self.end(batch, node, "removed by an operator")
        answer = call.answer(batch, self.seen(node))
        await self._state.commit(batch)
        return answer

    def end(self, batch: Batch, node: Node, reason: str) -> None:
        """Forget a node: its identity ends, and what may still run there is given up."""
        tables = self._state.tables
        for allocation in tables.allocations_on(node.id):
            if allocation.live:
                gone = lost(allocation, batch.now, f"node {node.name} was {reason}")
                batch.put(gone)
                batch.event("allocation-lost", gone.message, allocation=gone)
                batch.evaluate(allocation.job_key, "node-removed")
        credentials = [record.id for record in tables.credentials.values() if record.node == node.id]
        batch.delete("credential", *credentials)
        batch.delete("node", node.id)
        batch.event("node-removed", reason, node=node)
        self._sessions.forget(node.id)

    def start_drain(self, batch: Batch, node: Node, deadline: Time | None, *, leaving: bool = False) -> Node:
        """Have all work moved off a node, until a deadline or without end."""
        changed = evolve(
            node,
            eligibility=Eligibility.DRAINING,
            drain_deadline_at=deadline,
            leaving=leaving,
            last_seen=None,
        )
        batch.put(changed)
        batch.event("node-draining", "its agent is to stop" if leaving else "", node=node)
        self._look_at_jobs_on(batch, node, "drain")
        return changed

    def lose_contact(self, batch: Batch, node: Node, why: str = "nothing was heard of it") -> None:
        """Mark a node down: its copies are unknown, not lost."""
        batch.put(evolve(node, status=NODE.step(node.status, "expire"), status_at=batch.now, last_seen=None))
        batch.event("node-down", why, node=node)
        for allocation in self._state.tables.allocations_on(node.id):
            if allocation.live and allocation.status is not AllocationStatus.UNKNOWN:
                unknown = evolve(
                    allocation, status=ALLOCATION.step(allocation.status, "disconnect"), changed_at=batch.now
                )
                batch.put(unknown)
                batch.event("allocation-unknown", "its node is down", allocation=unknown)
                batch.evaluate(allocation.job_key, "node-down")

    def _look_at_jobs_on(self, batch: Batch, node: Node, trigger: str) -> None:
        for allocation in self._state.tables.allocations_on(node.id):
            if allocation.live:
                batch.evaluate(allocation.job_key, trigger)


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse a request that has mistakes.

    Raises:
        InvalidRequest: It has some; names the first of them.

    """
    if problems:
        raise InvalidRequest("; ".join(str(problem) for problem in problems[:PROBLEMS_TOLD_MAX]))


def protocol_message(found: int) -> str:
    """Return what is wrong with a peer's protocol number."""
    older = "the agent" if found < PROTOCOL else "the control plane"
    return f"the agent speaks protocol {found}, the control plane {PROTOCOL}: upgrade {older}"
