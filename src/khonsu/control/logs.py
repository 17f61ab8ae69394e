"""Logs: fetched from the agents that have them, when somebody looks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.find import find_allocation, find_job
from khonsu.control.following import Following
from khonsu.control.heard import Heard
from khonsu.control.state import State
from khonsu.control.streams import Streams, fed
from khonsu.core.job import JSON
from khonsu.core.protocol import TAIL_LINES_MAX
from khonsu.core.records import Allocation
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.core.status import FINISHED, current_allocations
from khonsu.errors import InvalidRequest, NotFound, Unavailable

STREAMS = ("both", "stdout", "stderr")
LINE_BYTES_MAX = 256 * 1024
AGAIN_SECONDS = 1.0
"""How long the end of a copy may come after that of its output, before its agent is asked again."""


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
        parameters = self._checked(call, [allocation])
        async with fed(partial(self._copy_all, [allocation], parameters)) as stream:
            yield stream

    @asynccontextmanager
    async def of_job(self, call: Call) -> AsyncGenerator[ByteStream, None]:
        """Serve `job.logs`: the logs of the current allocation of every slot; followed, also of what replaces them."""
        job = find_job(self._state, call.namespace, call.text("name"))
        present = self._present(job.key)
        parameters = self._checked(call, present)
        feed = partial(self._follow_job, job.key) if parameters["follow"] else partial(self._copy_all, present)
        async with fed(partial(feed, parameters)) as stream:
            yield stream

    def _checked(self, call: Call, allocations: Sequence[Allocation]) -> dict[str, JSON]:
        """Return the parameters of a call about some allocations."""
        parameters = _parameters(call)
        task = parameters["task"]
        if task is not None and allocations and not any(self._has_task(allocation, task) for allocation in allocations):
            raise NotFound("task", str(task))
        # Said now, for a stream that has begun can only be cut. Of several copies those are shown that can be.
        refusals = [self._refusal(one) for one in allocations if one.status is not AllocationStatus.PENDING]
        if refusals and all(refusals) and refusals[0] is not None:
            raise refusals[0]
        return parameters

    def _refusal(self, allocation: Allocation) -> Unavailable | None:
        """Return why the logs of a copy cannot be had now, if so."""
        node = self._state.tables.nodes.get(allocation.node_id)
        if node is None:
            return Unavailable(f"the logs of {allocation.id} went with node {allocation.node}, which was removed")
        if node.status is NodeStatus.DOWN:
            return Unavailable(f"the logs of {allocation.id} are on node {node.name}, which is down")
        return None

    def _present(self, job: str) -> list[Allocation]:
        """Return the current allocation of every slot of a job."""
        tables = self._state.tables
        record = tables.jobs.get(job)
        if record is None:
            return []
        return list(current_allocations(record, tables.spec(job, record.version), tables.allocations_of(job)))

    async def _copy_all(
        self, allocations: Sequence[Allocation], parameters: dict[str, JSON], send: MemoryObjectSendStream[bytes]
    ) -> None:
        """Stream the logs of several allocations, one after the other; say at the end what could not be had."""
        missing: Unavailable | None = None
        for allocation in allocations:
            if len(allocations) == 1 or self._refusal(allocation) is None:
                try:
                    await self._copy(allocation, parameters, send)
                except Unavailable as error:
                    missing = missing or error
        if missing is not None:
            raise missing

    async def _follow_job(self, job: str, parameters: dict[str, JSON], send: MemoryObjectSendStream[bytes]) -> None:
        """Stream the logs of a job's copies side by side, and of those that come later, until the job is over."""
        following = Following(parameters, self._present(job))

        def over() -> bool:
            return following.idle and self._is_over(job)

        async with anyio.create_task_group() as tasks:
            while True:
                for one in following.take(self._spoken_of(job)):
                    tasks.start_soon(self._follow_copy, one, following, send)
                if over():
                    tasks.cancel_scope.cancel()
                    return
                await self._state.wait_until(lambda: following.lacks(self._spoken_of(job)) or over(), f"job:{job}")

    async def _follow_copy(self, one: Allocation, following: Following, send: MemoryObjectSendStream[bytes]) -> None:
        """Stream the logs of a copy, and again what comes later when its agent was away."""
        wanted, heard = following.wanted(one), Heard()
        more = True
        while more:
            following.opened(one)
            # Others go on; that there is none was told before the stream began.
            with suppress(Unavailable):
                await self._copy(one, heard.onward(wanted), send, heard.news())
            following.closed(one)
            self._state.wake(f"job:{one.job_key}")
            more = await self._speaks_again(one, wanted["task"])

    def _spoken_of(self, job: str) -> list[Allocation]:
        """Return the current allocations of a job that their agents know of."""
        return [one for one in self._present(job) if one.status is not AllocationStatus.PENDING]

    def _is_over(self, job: str) -> bool:
        """Return whether nothing of a job will run any more, by itself."""
        record = self._state.tables.jobs.get(job)
        if record is None:
            return True
        over = record.stopped or record.status in FINISHED
        silent = AllocationStatus.UNKNOWN
        return over and not any(one.live and one.status is not silent for one in self._state.tables.allocations_of(job))

    async def _speaks_again(self, allocation: Allocation, task: JSON) -> bool:
        """Wait until a copy whose stream has ended has ended too (False), or its agent can be asked again (True)."""
        scopes = (f"job:{allocation.job_key}", "nodes")
        with anyio.move_on_after(AGAIN_SECONDS):
            await self._state.wait_until(lambda: not self._writes(allocation, task), *scopes)

        def decided() -> bool:
            node = self._state.tables.nodes.get(allocation.node_id)
            return not self._writes(allocation, task) or (node is not None and node.status is NodeStatus.READY)

        await self._state.wait_until(decided, *scopes)
        return self._writes(allocation, task)

    def _writes(self, allocation: Allocation, task: JSON) -> bool:
        """Return whether more output may come from a copy."""
        present = self._state.tables.allocations.get(allocation.id)
        if present is None or not present.live:
            return False
        wanted = [one for one in present.tasks if task in (None, one.name)]
        return not wanted or any(not one.status.terminal for one in wanted)

    async def _copy(
        self,
        allocation: Allocation,
        parameters: dict[str, JSON],
        send: MemoryObjectSendStream[bytes],
        is_new: Callable[[bytes], bool] = lambda _: True,
    ) -> None:
        """Stream the logs of a copy, as far as they are new."""
        refusal = self._refusal(allocation)
        if refusal is not None:
            raise refusal
        node = self._state.tables.nodes[allocation.node_id]
        wanted = {**parameters, "allocation": allocation.id}
        async with self._streams.open(node, "logs", wanted) as chunks:
            async for line in lines(chunks):
                if is_new(line):
                    await send.send(line)

    def _has_task(self, allocation: Allocation, task: object) -> bool:
        return any(spec.name == task for spec in self._state.tables.group(allocation).tasks)


def _parameters(call: Call) -> dict[str, JSON]:
    stream = call.text("stream", "both")
    if stream not in STREAMS:
        raise InvalidRequest(f"stream: found {stream!r}, expected one of {', '.join(STREAMS)}")
    tail = call.optional_integer("tail")
    if tail is not None and tail > TAIL_LINES_MAX:
        hint = "Leave it out, and take the end of what comes"
        raise InvalidRequest(f"tail: found {tail}, expected at most {TAIL_LINES_MAX} lines", hint=hint)
    since = call.body.get("since")
    return {
        "task": call.optional_text("task"),
        "follow": call.flag("follow"),
        "stream": stream,
        "tail": tail,
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
