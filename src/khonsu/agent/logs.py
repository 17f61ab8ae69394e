"""Logs, for whoever looks at them: read here, and sent to the control plane by a stream that the agent opens."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import aclosing
from functools import partial
from typing import Final, Literal

import anyio
from attrs import field, frozen
from attrs.validators import ge, le, optional

from khonsu.abc.transport import ByteStream, Connection, Request
from khonsu.agent.layout import Layout, is_name
from khonsu.agent.workload import Workload
from khonsu.core.codec import dumps, from_json
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.protocol import TAIL_LINES_MAX, AgentRequest, LogLine
from khonsu.core.records import Time
from khonsu.drivers.logfiles import STREAMS, read_logs
from khonsu.env import Env
from khonsu.errors import KhonsuError
from khonsu.scopes import bare, bare_task_group

READERS_MAX: Final = 64
BUFFER_BYTES_MAX: Final = 2**16
_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class LogQuery:
    """What of an allocation's output is wanted; without a task, that of all of them."""

    allocation: str
    task: str | None = None
    follow: bool = False
    stream: Literal["both", "stdout", "stderr"] = "both"
    tail: int | None = field(default=None, validator=optional([ge(0), le(TAIL_LINES_MAX)]))
    since: float | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """Return the streams by name."""
        return STREAMS if self.stream == "both" else (self.stream,)


class _Outgoing:
    """Bytes on their way: what is written while the last ones are sent goes with the next."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._filled = anyio.Event()
        self._emptied = anyio.Event()
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Add bytes; waits while there are too many."""
        while len(self._buffer) > BUFFER_BYTES_MAX:
            await self._emptied.wait()
        self._buffer.extend(data)
        self._filled.set()

    def close(self) -> None:
        """Take note that nothing more comes."""
        self._closed = True
        self._filled.set()

    async def send(self, stream: ByteStream) -> None:
        """Send what is written, until all is sent and nothing more comes."""
        while self._buffer or not self._closed:
            await self._filled.wait()
            data = bytes(self._buffer)
            self._buffer.clear()
            if not self._closed:
                self._filled = anyio.Event()
            self._emptied.set()
            self._emptied = anyio.Event()
            if data:
                await stream.send(data)


class LogServer:
    """Answers requests for logs. For the event loop only."""

    def __init__(self, connection: Connection, node: NodeId, *, layout: Layout, workload: Workload, env: Env) -> None:
        """Answer over a connection."""
        self._connection = connection
        self._node = node
        self._layout = layout
        self._workload = workload
        self._env = env
        self._readers = anyio.Semaphore(READERS_MAX)
        self._asked: deque[AgentRequest] = deque()
        self._more = anyio.Event()

    def take(self, request: AgentRequest) -> None:
        """Answer a request, soon."""
        self._asked.append(request)
        self._more.set()

    async def run(self) -> None:
        """Answer requests, for ever."""
        async with bare_task_group() as group:
            while True:
                self._more = anyio.Event()
                while self._asked:
                    request = self._asked.popleft()
                    if request.operation == "logs":
                        group.start_soon(self._answer, request)
                    else:
                        _log.warning("the control plane asks for %s, which this agent cannot do", request.operation)
                await self._more.wait()

    async def _answer(self, request: AgentRequest) -> None:
        """Answer a request, or cut the stream; whoever asked may be gone by then, or go."""
        try:
            query = from_json(LogQuery, request.parameters)
            async with self._readers:
                asked = Request(operation="node.stream", body={"node": self._node, "id": request.id})
                async with self._connection.stream(asked) as stream:
                    await self._send(query, stream)
        except (KhonsuError, OSError, ValueError, ExceptionGroup) as error:
            # Several tasks may fail at once, and so may the stream. What a log cannot be, another process has made.
            _log.info("logs of %s: %s", request.parameters.get("allocation"), bare(error))

    async def _send(self, query: LogQuery, stream: ByteStream) -> None:
        outgoing = _Outgoing()
        async with bare_task_group() as group:
            group.start_soon(outgoing.send, stream)
            async with bare_task_group() as readers:
                for task in await self._env.run_blocking(self._tasks, query):
                    if query.follow:
                        readers.start_soon(self._read, query, task, outgoing)
                    else:
                        await self._read(query, task, outgoing)
            outgoing.close()

    def _tasks(self, query: LogQuery) -> tuple[str, ...]:
        """Return the tasks whose output is wanted and may be there. Blocks."""
        if not (is_name(query.allocation) and is_name(query.task or "all")):
            return ()
        if query.task is not None:
            return (query.task,)
        state = self._workload.get(query.allocation)
        if state is not None:
            return tuple(task.name for task in state.group.tasks)
        return self._layout.tasks(query.allocation)

    async def _read(self, query: LogQuery, task: str, outgoing: _Outgoing) -> None:
        """Write the lines of one task."""
        lines = read_logs(
            self._layout.logs(query.allocation, task),
            env=self._env,
            streams=query.streams,
            tail=query.tail,
            since=query.since,
            follow=query.follow,
            ended=partial(self._is_over, query.allocation, task),
        )
        async with aclosing(lines):
            async for line in lines:
                entry = LogLine(
                    allocation=AllocationId(query.allocation),
                    task=task,
                    stream=line.stream,
                    text=line.text,
                    at=Time(line.time),
                )
                await outgoing.write(dumps(entry).encode() + b"\n")

    def _is_over(self, key: str, task: str) -> bool:
        """Return whether a task writes nothing any more."""
        state = self._workload.get(key)
        run = state.run(task) if state is not None else None
        return run is None or run.state.terminal
