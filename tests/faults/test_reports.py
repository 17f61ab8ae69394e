"""What no agent would say, said by a node whose credential is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.abc.transport import Request
from khonsu.core.codec import to_json
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.errors import KhonsuError
from khonsu.stores.sqlite import SQLiteStore
from tests.control.cluster import Cluster, Node, cluster, facts, report, service
from tests.faults.test_bodies import HOSTILE

if TYPE_CHECKING:
    from pathlib import Path

    from khonsu.abc.transport import Connection

pytestmark = pytest.mark.anyio

A = AllocationStatus
Place = tuple[str | int, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Return where something stands in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield (*here, name)
        yield from places(inner, (*here, name))


def put(value: Any, where: Place, other: Any) -> Any:
    """Return a copy of a JSON value with something else in one place."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = other
    return copy


async def said(connection: Connection, operation: str, body: Any) -> None:
    """Say something; it is taken, or refused with a reason that is not ours."""
    try:
        await connection.call(Request(operation=operation, body=body))
    except KhonsuError as error:
        refusal = error.status, error.message
    else:
        return
    assert refusal[0] != 500, (body, refusal)
    assert refusal[1]


async def in_order(home: Cluster, node: Node) -> None:
    """See that the control plane still does its work: a job comes to the good node, and all can be read."""
    await node.sync(facts=facts())
    for job in ("web", "later"):
        await home.client.submit(service(job, count=1, cpu=100))
        await home.until(partial(home.copies, job))
    assert {one.name for one in await home.client.nodes()} >= {"odd", "good"}
    assert all(one.status is NodeStatus.READY for one in await home.client.nodes() if one.name == "good")
    await home.client.allocations()
    await home.client.explain("later")
    await home.events()


@pytest.fixture
async def home(tmp_path: Path) -> Any:
    """Return a control plane on a file, with a node that says odd things and one that does not."""
    async with cluster(SQLiteStore(tmp_path / "state.db")) as made:
        yield made


async def test_odd_facts(home: Cluster) -> None:
    """Whatever a node says of itself, it is taken or refused, and others are given work as before."""
    odd = await home.node("odd")
    good = await home.node("good")
    said_of_it = to_json(facts())
    body = {"node": odd.id, "session": "session", "boot_id": "boot", "reports": [], "facts": said_of_it}
    for where in places(said_of_it):
        for value in HOSTILE:
            await said(odd.connection, "node.sync", put(body, ("facts", *where), value))
    await in_order(home, good)


async def test_odd_reports(home: Cluster) -> None:
    """Whatever a node reports of a copy, it is taken or refused, and everything can be read as before."""
    odd = await home.node("odd")
    good = await home.node("good")
    await odd.sync(facts=facts())
    await home.client.submit(service(count=1))
    (copy,) = await home.until_copies("web", 1, A.PENDING)
    told = to_json(report(copy, A.STARTING))
    body = {"node": odd.id, "session": "session", "boot_id": "boot", "reports": [told]}
    for where in places(told):
        for value in HOSTILE:
            await said(odd.connection, "node.sync", put(body, ("reports", 0, *where), value))
    for name in ("session", "boot_id", "seen", "hold_seconds", "protocol", "reports"):
        for value in HOSTILE:
            if (name, value) != ("hold_seconds", 1e308):
                await said(odd.connection, "node.sync", put(body, (name,), value))
    await in_order(home, good)
