"""The transport over the simulated network: the real handler, in the server's own tasks."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from attrs import define, evolve, field

from khonsu.abc.transport import ByteStream, Connection, Handler, Identity, Listener, Request, Response, Transport
from khonsu.core.operations import Direction
from khonsu.core.secret import Secret
from khonsu.errors import KhonsuError, Unreachable
from khonsu.scopes import bare_task_group
from khonsu.testing.simulation.clock import true_time
from khonsu.testing.simulation.env import SimEnv
from khonsu.testing.simulation.network import Endpoint, Network
from khonsu.testing.simulation.sights import SYNC
from khonsu.transports.routing import find_operation
from khonsu.transports.serving import answer
from khonsu.transports.wire import decode, encode

PATIENCE_SECONDS: Final = 30.0
"""How long an answer is waited for where the request does not say; the same as over HTTP."""


class SimListener(Listener):
    """Serves at an address of the network.

    Args:
        network: The network.
        address: The address.
        env: Of the program that serves.

    """

    def __init__(self, network: Network, address: str, env: SimEnv) -> None:
        """Serve nothing yet."""
        self._network = network
        self._address = address
        self._env = env

    @asynccontextmanager
    async def serve(self, handler: Handler, /) -> AsyncGenerator[str, None]:
        """Serve a handler."""
        async with bare_task_group() as group:
            endpoint = Endpoint(handler, group, self._env)
            self._network.listen(self._address, endpoint)
            try:
                yield f"simulation://{self._address}"
            finally:
                self._network.leave(self._address, endpoint)
                group.cancel_scope.cancel()


class SimTransport(Transport):
    """A way from a host to an address.

    Args:
        network: The network.
        source: The host that dials.
        target: The address.
        env: Of the program that dials.

    """

    def __init__(self, network: Network, source: str, target: str, env: SimEnv) -> None:
        """Dial nothing yet."""
        self.network = network
        self.source = source
        self.target = target
        self.env = env

    @asynccontextmanager
    async def connect(self, identity: Identity | None, /) -> AsyncGenerator[Connection, None]:
        """Own a connection; each request finds its own way."""
        connection = _SimConnection(self, identity.credential if identity is not None else None)
        try:
            yield connection
        finally:
            connection.closed = True


@define(eq=False)
class _Exchange:
    """A request and what comes of it."""

    request: Request
    reads: bool
    number: int
    target: str
    """The host that the address led to when it was made."""
    moves: tuple[int, int]
    """How often the addresses of both hosts had changed by then."""
    done: anyio.Event = field(factory=anyio.Event)
    answer: bytes | None = None
    error: KhonsuError | None = None
    given_up: bool = False
    scopes: list[anyio.CancelScope] = field(factory=list)

    def finish(self, answer: bytes | None, error: KhonsuError | None) -> None:
        """Take the first answer that arrives."""
        if not self.done.is_set():
            self.answer, self.error = answer, error
            self.done.set()

    def give_up(self) -> None:
        """Let go: of what only reads, nobody is left to answer to."""
        self.given_up = True
        if self.reads:
            for scope in self.scopes:
                scope.cancel()


class _SimConnection(Connection):
    def __init__(self, way: SimTransport, credential: Secret | None) -> None:
        self._way = way
        self._network = way.network
        self._credential = credential
        self._server = f"the control plane at {way.target}"
        self.closed = False

    async def call(self, request: Request, /) -> Response:
        """Make a request and return its answer."""
        exchange = await self._begin(request)
        self._network.calls.began(self._way.source, request.operation)
        patience = request.deadline_seconds
        if patience is None:
            patience = PATIENCE_SECONDS + float(request.body.get("wait") or 0.0)
        copies = 2 if self._network.happens(self._network.doubled) else 1
        if copies > 1:
            self._note(exchange, "arrives twice")
        try:
            for copy in range(copies):
                self._network.group.start_soon(self._carry, exchange, self._network.echo_seconds * copy)
            with anyio.move_on_after(patience):
                await exchange.done.wait()
        finally:
            exchange.give_up()
            self._network.calls.ended(self._way.source, request.operation)
        await self._way.env.awake()
        if exchange.error is not None:
            raise exchange.error
        if exchange.answer is None:
            raise Unreachable(self._server, f"no answer within {patience:g} s")
        body = decode(exchange.answer)
        if request.operation == SYNC:
            self._network.heard_of(self._way.source, body["term"])
        return Response(body=body)

    async def _begin(self, request: Request) -> _Exchange:
        operation = find_operation(request.operation, Direction.CALL)
        if self.closed:
            raise Unreachable(self._server, "the connection was closed")
        await self._way.env.awake()
        # What is null is absent in a query.
        body = {name: value for name, value in request.body.items() if value is not None or not operation.reads}
        credential = request.credential if request.credential is not None else self._credential
        sent = evolve(request, body=decode(encode(body)), credential=credential)
        source, network = self._way.source, self._network
        target = network.target(source, self._way.target)
        return _Exchange(sent, operation.reads, network.next_number(), target, network.moved(source, target))

    # On the way.

    async def _carry(self, exchange: _Exchange, later_seconds: float) -> None:
        """Carry a request to the server, some time later than now."""
        network, source, target = self._network, self._way.source, exchange.target
        await anyio.sleep(network.chance.random() * later_seconds)
        await network.travel()
        if network.happens(network.lost_requests) or not self._passes(exchange, source, target):
            self._note(exchange, "is lost")
            return
        endpoint = network.endpoints.get(target)
        if endpoint is None:
            if target not in network.dark:
                exchange.finish(None, Unreachable(self._server, "it is not running"))
            return
        try:
            endpoint.group.start_soon(self._serve, exchange, endpoint)
        except RuntimeError:  # its task group has ended
            exchange.finish(None, Unreachable(self._server, "it is not running"))

    async def _serve(self, exchange: _Exchange, endpoint: Endpoint) -> None:
        """Have a request served, in a task of the server."""
        reply: bytes | None = None
        error: KhonsuError | None = Unreachable(self._server, "it stopped before it answered")
        strays = exchange.target != self._way.target  # and is of no account
        if endpoint.env.paused and not strays:
            self._network.calls.waits(self._way.source, exchange.request.operation)
        try:
            await endpoint.env.awake()
            arrived_at = true_time()
            if not strays:
                self._network.calls.arrived(self._way.source, exchange.request.operation)
            with anyio.CancelScope() as scope:
                exchange.scopes.append(scope)
                if not (exchange.given_up and exchange.reads) and endpoint.handler.ready():
                    try:
                        reply, error = await answer(endpoint.handler, exchange.request), None
                    except KhonsuError as refused:
                        error = refused
            await endpoint.env.awake()
            if not strays:
                self._network.calls.served(self._way.source, exchange.request.operation, arrived_at, error)
        finally:
            self._network.group.start_soon(self._return, exchange, reply, error)

    async def _return(self, exchange: _Exchange, reply: bytes | None, error: KhonsuError | None) -> None:
        """Carry an answer back; a server without power sends none."""
        network, source, target = self._network, self._way.source, exchange.target
        if target in network.dark:
            return
        await network.travel()
        if network.happens(network.lost_answers) or not self._passes(exchange, target, source):
            self._note(exchange, "is done, but its answer is lost")
            return
        exchange.finish(reply, error)

    def _passes(self, exchange: _Exchange, source: str, target: str) -> bool:
        """Return whether a message of an exchange arrives where it is sent to."""
        network = self._network
        return network.passes(source, target) and exchange.moves == network.moved(self._way.source, exchange.target)

    def _note(self, exchange: _Exchange, what: str) -> None:
        self._network.note(self._way.source, f"{exchange.request.operation} {what}")

    # Streams.

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Open a stream; what goes over it keeps its order."""
        network = self._network
        await self._way.env.awake()
        if self.closed:
            raise Unreachable(self._server, "the connection was closed")
        await network.travel()
        endpoint = network.endpoints.get(network.target(self._way.source, self._way.target))
        if endpoint is None or not network.passes(self._way.source, self._way.target):
            raise Unreachable(self._server, "it is not running")
        credential = request.credential if request.credential is not None else self._credential
        sent = evolve(request, credential=credential)
        async with endpoint.transport.connect(None) as connection, connection.stream(sent) as stream:
            yield _SimStream(stream, self._way)


class _SimStream(ByteStream):
    """One end of a stream: bytes take their time, and none pass while the way is cut."""

    def __init__(self, stream: ByteStream, way: SimTransport) -> None:
        self._stream = stream
        self._way = way
        self._moves = way.network.moved(way.source, way.target)

    async def receive(self) -> bytes:
        """Return some bytes."""
        # The delay first: a reader that is cancelled after it has the bytes would lose them.
        await self._pass(self._way.target, self._way.source)
        return await self._stream.receive()

    async def send(self, data: bytes, /) -> None:
        """Send bytes."""
        await self._pass(self._way.source, self._way.target)
        await self._stream.send(data)

    async def _pass(self, source: str, target: str) -> None:
        network = self._way.network
        await network.travel()
        if not network.passes(source, target) or self._moves != network.moved(self._way.source, self._way.target):
            raise Unreachable(f"the control plane at {self._way.target}", "the connection broke")
        await self._way.env.awake()
