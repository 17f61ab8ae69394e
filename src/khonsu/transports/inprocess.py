"""The transport within one process: straight to the handler, and still at arm's length.

Requests and answers pass through JSON, so that no value is shared, and refusals through problem documents, so that
they are the same as over a network. The handler runs in tasks of its own: a caller that is cancelled or runs out of
time cancels nothing on the other side, but for what only reads or will be
made again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, evolve, field

from khonsu.abc.oneway import Downward, Upward
from khonsu.abc.transport import ByteStream, Connection, Handler, Identity, Request, Response, Transport
from khonsu.core.operations import Direction
from khonsu.core.secret import Secret
from khonsu.errors import KhonsuError, Unreachable
from khonsu.scopes import bare_task_group
from khonsu.transports.routing import find_operation
from khonsu.transports.serving import answer, guarded, pass_on, take
from khonsu.transports.wire import decode, decode_error, encode, encode_error

SERVER: Final = "the control plane in this process"
CLOSE_SECONDS: Final = 1.0


class InProcessTransport(Transport):
    """A way to a handler in the same event loop.

    Args:
        handler: The control plane.
        credential: Goes with requests that have none, on connections without an identity.
        task_group: The server's own, in which its side of each request runs and with which it ends. Without one, each
            connection brings its own, and leaving the connection waits up to a second for what is being written.

    """

    def __init__(
        self, handler: Handler, /, *, credential: Secret | None = None, task_group: TaskGroup | None = None
    ) -> None:
        """Keep the handler; nothing is called yet."""
        self._handler = handler
        self._credential = credential
        self._task_group = task_group

    @asynccontextmanager
    async def connect(self, identity: Identity | None, /) -> AsyncGenerator[Connection, None]:
        """Own a connection."""
        credential = identity.credential if identity is not None else self._credential
        if self._task_group is not None:
            connection = _InProcessConnection(self._handler, credential, self._task_group, shielded=False)
            try:
                yield connection
            finally:
                connection.close()
            return
        async with bare_task_group() as group:
            connection = _InProcessConnection(self._handler, credential, group, shielded=True)
            try:
                yield connection
            finally:
                connection.close()
                with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                    await connection.drain()
                group.cancel_scope.cancel()
                connection.abort()


@define(eq=False)
class _Exchange:
    """The server's side of one request."""

    request: Request
    interruptible: bool
    scope: anyio.CancelScope
    opened: anyio.Event = field(factory=anyio.Event)
    done: anyio.Event = field(factory=anyio.Event)
    answer: bytes = b""
    error: KhonsuError | None = None
    caller: anyio.CancelScope | None = None
    """The caller's block, where it is to end when the server's side does."""

    def check(self) -> None:
        """Raise why it failed, if it did."""
        if self.error is not None:
            raise self.error

    def fail(self, error: KhonsuError) -> None:
        """Keep why it failed, as it would arrive over a network."""
        self.error = decode_error(encode_error(error))

    def end(self, *, well: bool) -> None:
        """Say that the server's side is over."""
        if not well and self.error is None:
            self.error = Unreachable(SERVER, "it stopped before it answered")
        self.opened.set()
        self.done.set()
        if self.caller is not None:
            self.caller.cancel()


class _InProcessConnection(Connection):
    def __init__(self, handler: Handler, credential: Secret | None, group: TaskGroup, *, shielded: bool) -> None:
        self._handler = handler
        self._credential = credential
        self._group = group
        self._shielded = shielded
        self._exchanges: dict[_Exchange, None] = {}
        self._closed = False

    def close(self) -> None:
        """Refuse new requests and end what may be cut."""
        self._closed = True
        for exchange in self._exchanges:
            if exchange.interruptible:
                exchange.scope.cancel()

    async def drain(self) -> None:
        """Wait for the end of what is under way."""
        for exchange in tuple(self._exchanges):
            await exchange.done.wait()

    def abort(self) -> None:
        """End everything."""
        for exchange in self._exchanges:
            exchange.scope.cancel()

    async def call(self, request: Request, /) -> Response:
        """Make a request and return its answer."""
        exchange = self._begin(request, Direction.CALL, self._serve_call)
        try:
            with anyio.move_on_after(request.deadline_seconds):
                await exchange.done.wait()
        finally:
            if exchange.interruptible and not exchange.done.is_set():
                exchange.scope.cancel()
        if not exchange.done.is_set():
            raise Unreachable(SERVER, f"no answer within {request.deadline_seconds:g} s")
        exchange.check()
        return Response(body=decode(exchange.answer))

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Open a stream."""
        direction = find_operation(request.operation, Direction.DOWN, Direction.UP).direction
        sender, receiver = anyio.create_memory_object_stream[bytes]()
        serve = self._sending(sender) if direction is Direction.DOWN else self._receiving(receiver)
        with sender, receiver:
            exchange = self._begin(request, direction, serve)
            try:
                with anyio.move_on_after(request.deadline_seconds):
                    await exchange.opened.wait()
                if not exchange.opened.is_set():
                    raise Unreachable(SERVER, f"the stream did not open within {request.deadline_seconds:g} s")
                exchange.check()
                if direction is Direction.DOWN:
                    yield _Downward(receiver, exchange)
                    return
                with anyio.CancelScope() as block:
                    exchange.caller = block
                    yield _Upward(sender, exchange)
                    exchange.caller = None
                    await sender.aclose()
                    await exchange.done.wait()
                exchange.check()
                if block.cancelled_caught:
                    raise Unreachable(SERVER, "it ended the stream")
            finally:
                exchange.caller = None
                exchange.scope.cancel()
                with anyio.CancelScope(shield=True):
                    await exchange.done.wait()

    def _begin(
        self, request: Request, direction: Direction, serve: Callable[[_Exchange], Awaitable[None]]
    ) -> _Exchange:
        """Start the server's side of a request."""
        operation = find_operation(request.operation, direction)
        if self._closed or not self._handler.ready():
            raise Unreachable(SERVER, "it is not running" if not self._closed else "the connection was closed")
        # What is null is absent in a query, and so it is here.
        body = {name: value for name, value in request.body.items() if value is not None or not operation.reads}
        credential = request.credential if request.credential is not None else self._credential
        exchange = _Exchange(
            request=evolve(request, body=decode(encode(body)), credential=credential),
            interruptible=operation.interruptible,
            scope=anyio.CancelScope(shield=self._shielded),
        )
        try:
            self._group.start_soon(self._run, exchange, serve, name=operation.name)
        except RuntimeError:  # the server's task group has ended
            raise Unreachable(SERVER, "it is not running") from None
        self._exchanges[exchange] = None
        return exchange

    async def _run(self, exchange: _Exchange, serve: Callable[[_Exchange], Awaitable[None]]) -> None:
        """Run the server's side of a request in a task of its own."""
        well = False
        try:
            with exchange.scope:
                try:
                    await serve(exchange)
                except KhonsuError as error:
                    exchange.fail(error)
                well = True
        finally:
            self._exchanges.pop(exchange, None)
            exchange.end(well=well)

    async def _serve_call(self, exchange: _Exchange) -> None:
        exchange.answer = await answer(self._handler, exchange.request)

    def _sending(self, sender: MemoryObjectSendStream[bytes]) -> Callable[[_Exchange], Awaitable[None]]:
        async def serve(exchange: _Exchange) -> None:
            with sender, guarded(exchange.request.operation):
                async with self._handler.stream(exchange.request) as stream:
                    exchange.opened.set()
                    while data := await take(stream):
                        await sender.send(bytes(data))

        return serve

    def _receiving(self, receiver: MemoryObjectReceiveStream[bytes]) -> Callable[[_Exchange], Awaitable[None]]:
        async def serve(exchange: _Exchange) -> None:
            with receiver, guarded(exchange.request.operation):
                async with self._handler.stream(exchange.request) as stream:
                    exchange.opened.set()
                    async for data in receiver:
                        await pass_on(stream, data)

        return serve


class _Downward(Downward):
    """The caller's end of a stream to it."""

    def __init__(self, receiver: MemoryObjectReceiveStream[bytes], exchange: _Exchange) -> None:
        self._receiver = receiver
        self._exchange = exchange

    async def receive(self) -> bytes:
        """Return some bytes."""
        try:
            return await self._receiver.receive()
        except anyio.EndOfStream:
            await self._exchange.done.wait()
            self._exchange.check()
            raise


class _Upward(Upward):
    """The caller's end of a stream from it."""

    def __init__(self, sender: MemoryObjectSendStream[bytes], exchange: _Exchange) -> None:
        self._sender = sender
        self._exchange = exchange

    async def send(self, data: bytes, /) -> None:
        """Send bytes; returns when the other side took them."""
        if not data:
            return
        try:
            await self._sender.send(bytes(data))
        except anyio.BrokenResourceError:
            await self._exchange.done.wait()
            self._exchange.check()
            raise Unreachable(SERVER, "it ended the stream") from None
