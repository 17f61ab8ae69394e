from __future__ import annotations

from typing import Any

import anyio
import pytest
from attrs import evolve

from khonsu.abc.transport import Request
from khonsu.core.codec import to_json
from khonsu.core.operations import OPERATIONS, Direction, Operation, Role
from khonsu.core.protocol import JoinRequest
from khonsu.core.records import Time
from khonsu.core.secret import Secret
from khonsu.errors import Conflict, InvalidRequest, KhonsuError, NotAllowed, Unauthenticated
from tests.control.cluster import Cluster, cluster, facts

pytestmark = pytest.mark.anyio

ROLES = (Role.OPERATOR, Role.NODE, Role.JOIN)


async def ask(home: Cluster, operation: Operation, credential: Secret) -> None:
    """Make a request without parameters."""
    connection = await home.connect(credential)
    request = Request(operation=operation.name, body={"node": "x", "id": "x", "name": "x"})
    if operation.direction is Direction.CALL:
        await connection.call(request)
    else:
        async with connection.stream(request):
            pass


@pytest.mark.parametrize("name", sorted(OPERATIONS))
async def test_every_operation_is_refused_to_other_roles(home: Cluster, name: str) -> None:
    """Nobody does what is not for their role."""
    operation = OPERATIONS[name]
    for role in ROLES:
        if role is not operation.role:
            with pytest.raises(NotAllowed, match="is not for the role"):
                await ask(home, operation, home.plane.parts.gate.local(role))


async def test_what_opens_nothing_is_refused(home: Cluster) -> None:
    """A missing, malformed, foreign or altered credential is not let in."""
    operation = OPERATIONS["system.status"]
    async with cluster() as elsewhere:
        foreign = [elsewhere.plane.parts.gate.local(Role.OPERATOR), await elsewhere.plane.invite()]
        joined = await elsewhere.joined("a")
    good = home.plane.parts.gate.local(Role.OPERATOR).reveal()
    altered = good[:-1] + ("a" if good[-1] != "a" else "b")
    for text in (Secret("x"), Secret(altered), Secret(joined.credential), *foreign):
        with pytest.raises(Unauthenticated):
            await ask(home, operation, text)
    with pytest.raises(Unauthenticated):
        await home.plane.parts.handler.call(Request(operation="system.status"))


async def test_clients_of_this_process_share_a_credential(home: Cluster) -> None:
    """A program that makes a client for each of its requests does not fill the memory with credentials."""
    gate = home.plane.parts.gate
    assert gate.local(Role.OPERATOR) == gate.local(Role.OPERATOR)
    assert gate.local(Role.OPERATOR) != gate.local(Role.JOIN)


async def test_an_unknown_operation_is_refused(home: Cluster) -> None:
    """What there is not is said to be so, after it is known who asks."""
    credential = home.plane.parts.gate.local(Role.OPERATOR)
    with pytest.raises(InvalidRequest):
        await home.plane.parts.handler.call(Request(operation="job.fly", credential=credential))


async def test_a_node_speaks_only_for_itself(home: Cluster) -> None:
    """A node's credential is good for its own requests."""
    one, other = await home.node("a"), await home.node("b")
    await one.sync()
    one.id = other.id
    with pytest.raises(NotAllowed, match="only for itself"):
        await one.sync()


async def test_a_join_token_is_good_once(home: Cluster) -> None:
    """The second use is refused, and says what to do."""
    token = await home.plane.invite()
    await home.joined("a", token)
    with pytest.raises(Unauthenticated, match="was used") as caught:
        await home.joined("b", token)
    assert caught.value.hint is not None


async def test_a_join_token_is_good_once_also_at_the_same_time(home: Cluster) -> None:
    """Of requests that race for it one becomes a node, and the others are not let in as something else."""
    connection = await home.connect(await home.plane.invite(name="a", labels={"zone": "x"}))
    refused: list[KhonsuError] = []

    async def join(name: str) -> None:
        body = to_json(JoinRequest(name=name, facts=facts()))
        try:
            await connection.call(Request(operation="node.join", body=body, idempotency_key=name))
        except (Unauthenticated, Conflict) as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(join, name)
    assert [node.name for node in await home.client.nodes()] == ["a"]
    assert len(refused) == 2


async def test_a_join_token_that_is_used_meanwhile_makes_no_free_node(home: Cluster) -> None:
    """Between the gate and the decision a token may be used; whoever comes second is not taken for a local agent."""
    token = await home.plane.invite(name="a")
    body = to_json(JoinRequest(name="b", facts=facts()))
    _, late = home.plane.parts.gate.admit(Request(operation="node.join", body=body, credential=token))
    await home.joined("a", token)
    with pytest.raises(Unauthenticated, match="was used"):
        await home.plane.parts.nodes.join(late)


async def test_a_join_token_may_be_for_one_name(home: Cluster) -> None:
    """An invitation with a name and labels makes that node, with those labels, whatever the agent says."""
    token = await home.plane.invite(name="a", labels={"zone": "x"})
    with pytest.raises(Conflict, match="named a"):
        await home.joined("b", token)
    await home.joined("a", token, labels={"zone": "mine", "disk": "ssd"})
    assert (await home.client.node("a")).labels == {"zone": "x", "disk": "ssd"}


@pytest.mark.parametrize("wrong", [{"valid": "8d"}, {"valid": "0s"}, {"valid": "soon"}, {"name": "Ä"}])
async def test_an_impossible_invitation_is_refused(home: Cluster, wrong: dict[str, Any]) -> None:
    """A time or a name that cannot be is told."""
    with pytest.raises(InvalidRequest):
        await home.plane.invite(**wrong)


async def test_what_has_run_out_is_refused(home: Cluster) -> None:
    """A credential and an invitation end at their time."""
    state, past = home.plane.parts.state, Time(1.0)
    token = await home.plane.invite()
    node = await home.node("a")
    await node.sync()
    batch = state.batch()
    for invited in list(state.tables.join_tokens.values()):
        batch.put(evolve(invited, expires_at=past))
    for credential in list(state.tables.credentials.values()):
        batch.put(evolve(credential, expires_at=past))
    await state.commit(batch)
    with pytest.raises(Unauthenticated):
        await home.joined("b", token)
    with pytest.raises(Unauthenticated):
        await node.sync()


async def test_a_revoked_credential_is_refused(home: Cluster) -> None:
    """What is deleted opens nothing any more."""
    node = await home.node("a")
    await node.sync()
    batch = home.plane.parts.state.batch()
    batch.delete("credential", *home.tables.credentials)
    await home.plane.parts.state.commit(batch)
    with pytest.raises(Unauthenticated):
        await node.sync()


@pytest.mark.parametrize("skew", [-2, 2])
async def test_an_agent_of_another_age_is_refused(home: Cluster, skew: int) -> None:
    """One version of skew is accepted; with more the agent is told who is to be upgraded."""
    node = await home.node("a", protocol=1 + skew // 2)
    await node.sync(protocol=1 + skew // 2)
    with pytest.raises(Conflict, match="upgrade"):
        await node.sync(protocol=1 + skew)
    with pytest.raises(Conflict, match="upgrade"):
        await home.joined("b", protocol=1 + skew)
