"""Logs: fetched from the agents that have them, when somebody looks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.find import find_allocation, find_job
from khonsu.control.state import State
from khonsu.control.streams import Streams, fed
from khonsu.core.job import JSON
from khonsu.core.records import Allocation
from khonsu.core.retention import latest
from khonsu.core.states import NodeStatus
from khonsu.errors import InvalidRequest, NotFound, Unavailable

STREAMS = ("both", "stdout", "stderr")
LINE_BYTES_MAX = 256 * 1024


class Logs:
    """Serves `allocation.logs` and `job.logs`: one `LogLine` as JSON per line."""

    def __init__(self, state: State, streams: Streams) -> None:
        """Ask agents over `streams`."""
        self._state = state
        self._streams = streams

    @asynccontextmanager
    async def of_allocation(self, call: Call) -> AsyncGenerator[ByteStream, None]:
        """Serve `allocation.logs`."""
        allocation = find_allocation(self._state, call.namespace, call.text("id"))
        async with self._merged([allocation], _parameters(call)) as stream:
            yield stream

    @asynccontextmanager
    async def of_job(self, call: Call) -> AsyncGenerator[ByteStream, None]:
        """Serve `job.logs`: the logs of the current allocation of every slot."""
        job = find_job(self._state, call.namespace, call.text("name"))
        present = latest(self._state.tables.allocations_of(job.key))
        async with self._merged([present[slot] for slot in sorted(present)], _parameters(call)) as stream:
            yield stream

    @asynccontextmanager
    async def _merged(
        self, allocations: Sequence[Allocation], parameters: dict[str, JSON]
    ) -> AsyncGenerator[ByteStream, None]:
        """Stream several allocations' logs: side by side when they are followed, else one after the other."""
        task = parameters["task"]
        if task is not None and allocations and not any(self._has_task(allocation, task) for allocation in allocations):
            raise NotFound("task", str(task))
        async with fed(partial(self._copy_all, allocations, parameters)) as stream:
            yield stream

    async def _copy_all(
        self,
        allocations: Sequence[Allocation],
        parameters: dict[str, JSON],
        send: MemoryObjectSendStream[bytes],
    ) -> None:
        if parameters["follow"]:
            async with anyio.create_task_group() as tasks:
                for allocation in allocations:
                    tasks.start_soon(self._copy, send, allocation, parameters)
        else:
            for allocation in allocations:
                await self._copy(send, allocation, parameters)

    async def _copy(
        self, send: MemoryObjectSendStream[bytes], allocation: Allocation, parameters: dict[str, JSON]
    ) -> None:
        node = self._state.tables.nodes.get(allocation.node_id)
        if node is None:
            raise Unavailable(f"the logs of {allocation.id} went with node {allocation.node}, which was removed")
        if node.status is NodeStatus.DOWN:
            raise Unavailable(f"the logs of {allocation.id} are on node {node.name}, which is down")
        wanted = {**parameters, "allocation": allocation.id}
        async with self._streams.open(node, "logs", wanted) as chunks:
            async for line in lines(chunks):
                await send.send(line)

    def _has_task(self, allocation: Allocation, task: object) -> bool:
        return any(spec.name == task for spec in self._state.tables.group(allocation).tasks)


def _parameters(call: Call) -> dict[str, JSON]:
    stream = call.text("stream", "both")
    if stream not in STREAMS:
        raise InvalidRequest(f"stream: found {stream!r}, expected one of {', '.join(STREAMS)}")
    since = call.body.get("since")
    return {
        "task": call.optional_text("task"),
        "follow": call.flag("follow"),
        "stream": stream,
        "tail": call.optional_integer("tail"),
        "since": None if since is None else call.number("since"),
    }


async def lines(chunks: MemoryObjectReceiveStream[bytes]) -> AsyncIterator[bytes]:
    """Iterate over whole lines, so that those of several streams can be mixed."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if len(rest) > LINE_BYTES_MAX:
            raise Unavailable("an agent sent a line that is too long")
