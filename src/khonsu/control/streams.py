"""Streams from agents.

What the control plane wants of an agent travels as a request on the agent's watch, and comes back as a stream that the
agent opens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define

from khonsu.abc.oneway import Downward, Upward
from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.sessions import Sessions
from khonsu.control.state import Moves, State
from khonsu.core.job import JSON
from khonsu.core.protocol import AgentRequest
from khonsu.core.records import Node
from khonsu.errors import KhonsuError, NotFound, Unavailable
from khonsu.scopes import bare_task_group

CHUNKS_BUFFERED = 16
ANSWER_SECONDS_MAX = 15.0


@define(eq=False)
class _Wanted:
    """A stream that an agent was asked for."""

    node: str
    send: MemoryObjectSendStream[bytes]
    connected: anyio.Event
    gone: anyio.Event
    """Set when its reader has left, or its node was removed: the agent is to stop."""
    cut: bool = False
    """Whether it ended before its end."""


class DownStream(Downward):
    """A stream to the caller, fed from memory."""

    def __init__(self, receive: MemoryObjectReceiveStream[bytes]) -> None:
        """Read from the end of a memory stream."""
        self._receive = receive
        self.error: KhonsuError | None = None
        """Why the stream ended before its end, set by whoever feeds it."""

    async def receive(self) -> bytes:
        """Return the next bytes."""
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            if self.error is not None:
                raise self.error from None
            raise


class UpStream(Upward):
    """A stream from the caller, into memory."""

    def __init__(self, send: MemoryObjectSendStream[bytes]) -> None:
        """Write to the start of a memory stream."""
        self._send = send

    async def send(self, data: bytes, /) -> None:
        """Pass bytes on; waits while the reader is slow."""
        await self._send.send(data)


@asynccontextmanager
async def fed(feed: Callable[[MemoryObjectSendStream[bytes]], Awaitable[None]]) -> AsyncGenerator[ByteStream, None]:
    """Own a stream to the caller, and what feeds it; a refusal on the way is raised where the stream is read."""
    send, receive = anyio.create_memory_object_stream[bytes](CHUNKS_BUFFERED)
    stream = DownStream(receive)

    async def run() -> None:
        async with send:
            try:
                await feed(send)
            except* KhonsuError as failed:
                stream.error = first_of(failed)

    async with receive, bare_task_group() as tasks:
        tasks.start_soon(run)
        yield stream
        tasks.cancel_scope.cancel()


def first_of(failed: BaseExceptionGroup[KhonsuError]) -> KhonsuError:
    """Return the first refusal of a group."""
    error = failed.exceptions[0]
    return first_of(error) if isinstance(error, BaseExceptionGroup) else error


class Streams:
    """Asks agents for streams, and joins the two ends."""

    def __init__(self, state: State, sessions: Sessions) -> None:
        """Reach agents over their sessions."""
        self._state = state
        self._sessions = sessions
        self._wanted: dict[str, _Wanted] = {}
        state.listeners.append(self._follow)

    def _follow(self, moves: Moves) -> None:
        """End the streams of nodes that are removed: their identity has ended."""
        removed = {before.id for before, after in moves if isinstance(before, Node) and after is None}
        for wanted in self._wanted.values() if removed else ():
            if wanted.node in removed:
                wanted.gone.set()

    @asynccontextmanager
    async def open(
        self, node: Node, operation: str, parameters: Mapping[str, JSON]
    ) -> AsyncGenerator[MemoryObjectReceiveStream[bytes], None]:
        """Ask an agent for a stream; yields its bytes, in order, until the agent ends it.

        Raises:
            Unavailable: The agent is not there, does not answer, or goes away before the end.

        """
        session = self._sessions.get(node.id)
        if session is None:
            raise Unavailable(f"the agent of node {node.name} has not called since the control plane started")
        key = self._state.new_id()
        send, receive = anyio.create_memory_object_stream[bytes](CHUNKS_BUFFERED)
        wanted = _Wanted(node.id, send, anyio.Event(), anyio.Event())
        self._wanted[key] = wanted
        session.requests[key] = AgentRequest(id=key, operation=operation, parameters=parameters)
        self._state.wake(f"assign:{node.id}")
        try:
            with anyio.move_on_after(ANSWER_SECONDS_MAX):
                await wanted.connected.wait()
            if not wanted.connected.is_set():
                raise Unavailable(f"the agent of node {node.name} does not answer")
            async with receive:
                yield receive
            if wanted.cut:
                raise Unavailable(f"the agent of node {node.name} went away, and the rest did not come")
        finally:
            del self._wanted[key]
            self._withdraw(node.id, key)
            wanted.gone.set()
            send.close()
            receive.close()

    @asynccontextmanager
    async def answer(self, call: Call) -> AsyncGenerator[ByteStream, None]:
        """Serve `node.stream`: the agent's end.

        Raises:
            NotFound: Nobody waits for this stream any more.

        """
        node = call.own_node()
        wanted = self._wanted.get(call.text("id"))
        if wanted is None or wanted.node != node or wanted.connected.is_set():
            raise NotFound("stream", call.text("id"), hint="whoever asked for it has gone")
        wanted.connected.set()
        self._withdraw(node, call.text("id"))
        async with wanted.send, bare_task_group() as tasks:
            # An agent that follows a silent log must hear of it when its reader leaves.
            tasks.start_soon(_cut, wanted.gone, tasks.cancel_scope)
            try:
                yield UpStream(wanted.send)
            except BaseException:
                wanted.cut = True
                raise
            tasks.cancel_scope.cancel()

    def _withdraw(self, node: str, key: str) -> None:
        """Ask no more for what was answered, or is not wanted any more; the session may be another one by now."""
        session = self._sessions.get(node)
        if session is not None:
            session.requests.pop(key, None)


async def _cut(gone: anyio.Event, scope: anyio.CancelScope) -> None:
    await gone.wait()
    scope.cancel()
