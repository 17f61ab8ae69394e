"""What the control plane wants of an agent arrives, also when an answer is lost on the way."""

from __future__ import annotations

import anyio
import pytest

from khonsu.abc.transport import Request
from khonsu.core.records import Node as NodeRecord
from khonsu.errors import Unavailable, Unreachable
from tests.control.cluster import Cluster

pytestmark = pytest.mark.anyio


def stream_of(node: str, key: str) -> Request:
    """Return the request with which an agent answers."""
    return Request(operation="node.stream", body={"node": node, "id": key})


async def all_of(home: Cluster, node: NodeRecord) -> list[bytes]:
    """Return all that an agent sends."""
    async with home.plane.parts.streams.open(node, "logs", {}) as stream:
        return [data async for data in stream]


async def test_a_request_is_told_until_the_agent_says_so(home: Cluster) -> None:
    """Each answer has it, also the first one of the agent's next run, until one of its requests names it."""
    node = await home.node("a")
    await node.sync()
    streams, asked = home.plane.parts.streams, anyio.Event()
    record = home.tables.nodes[node.id]

    async def read() -> None:
        async with streams.open(record, "logs", {"allocation": "x"}) as stream:
            asked.set()
            assert [data async for data in stream] == [b"hello"]

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        (first,) = (await node.sync(hold=30.0)).requests
        # That answer never arrived.
        (again,) = (await node.sync(hold=30.0)).requests
        node.session, node.seen = "the next run", None
        (anew,) = (await node.sync()).requests
        assert first == again == anew
        assert (await node.sync(taken=(first.id,))).requests == ()
        assert not asked.is_set()
        async with node.connection.stream(stream_of(node.id, first.id)) as stream:
            await stream.send(b"hello")


async def test_a_stream_that_is_cut_is_not_taken_for_whole(home: Cluster) -> None:
    """An agent that goes away in the middle, and a node that is removed, are told to who reads."""
    for removed in (False, True):
        node = await home.node("a")
        await node.sync()
        record = home.tables.nodes[node.id]

        async def read(record: NodeRecord = record) -> None:
            with pytest.raises(Unavailable, match="went away"):
                await all_of(home, record)

        with anyio.fail_after(5.0):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                [request] = (await node.sync(hold=30.0)).requests
                with pytest.raises((Unreachable, ZeroDivisionError)):  # noqa: PT012 - the block is what is cut
                    async with node.connection.stream(stream_of(node.id, request.id)) as stream:
                        await stream.send(b"hello")
                        await node.leave()
                        if not removed:
                            raise ZeroDivisionError
                        await home.client.remove_node("a")
                        await anyio.sleep_forever()


async def test_what_nobody_wants_any_more_is_not_told(home: Cluster) -> None:
    """A reader that goes away takes its request along."""
    node = await home.node("a")
    await node.sync()
    record = home.tables.nodes[node.id]

    async def read() -> None:
        async with home.plane.parts.streams.open(record, "logs", {}):
            pass

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        assert len((await node.sync(hold=30.0)).requests) == 1
        group.cancel_scope.cancel()
    assert (await node.sync()).requests == ()
