"""The control plane as a listener sees it: every request comes through here."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio

from khonsu.abc.transport import ByteStream, Handler, Request, Response
from khonsu.control.answers import Answers
from khonsu.control.calls import Call, Operate
from khonsu.control.gate import Gate
from khonsu.control.state import State
from khonsu.core.operations import OPERATIONS, Direction, Operation
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, StoreError, Unavailable, ensure

READ_TRIES = 20
READ_AGAIN_SECONDS = 0.1
"""How often and how soon a read looks again: while a disk is full, writes fail again and again, and reads with them."""

Open = Callable[[Call], AbstractAsyncContextManager[ByteStream]]


class ControlHandler(Handler):
    """Admits requests at the gate and hands them to whoever serves the operation."""

    def __init__(
        self,
        state: State,
        gate: Gate,
        *,
        calls: Mapping[str, Operate],
        streams: Mapping[str, Open],
        context: Callable[[Sequence[str]], ssl.SSLContext],
        metrics: Callable[[], str],
    ) -> None:
        """Serve the operations of two tables, which together are all there are."""
        ensure(set(calls) | set(streams) == set(OPERATIONS), "every operation is served")
        self._state = state
        self._gate = gate
        self._calls = calls
        self._streams = streams
        self._context = context
        self._metrics = metrics
        self._answers = Answers(state)
        self.open = False

    async def call(self, request: Request, /) -> Response:
        """Serve a request."""
        self._check_open()
        operation, call = self._gate.admit(request)
        serve = self._calls.get(operation.name)
        if serve is None:
            raise InvalidRequest(f"{operation.name} is a stream")
        if request.deadline_seconds is None:
            return Response(body=await self._served(operation, call, serve))
        try:
            with anyio.fail_after(request.deadline_seconds):
                return Response(body=await self._served(operation, call, serve))
        except TimeoutError:
            raise Unavailable(f"{operation.name} took longer than {request.deadline_seconds} s") from None

    async def _served(self, operation: Operation, call: Call, serve: Operate) -> Mapping[str, Any]:
        """Return an answer; a read that saw what was undone, since the disk is full, looks again."""
        for _ in range(READ_TRIES - 1 if operation.reads else 0):
            try:
                return await serve(call)
            except StoreError as error:
                if not error.retryable:
                    raise
                await self._state.env.sleep(READ_AGAIN_SECONDS)
        return await self._answers.once(call, serve)

    def authenticate(self, operation: str, credential: Secret | None, /) -> None:
        """Check who asks, before anything else of a request was read."""
        self._check_open()
        self._gate.authenticate(operation, credential)

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Serve a stream."""
        self._check_open()
        operation, call = self._gate.admit(request)
        serve = self._streams.get(operation.name)
        if serve is None or operation.direction is Direction.CALL:
            raise InvalidRequest(f"{operation.name} is not a stream")
        async with serve(call) as stream:
            yield stream

    def server_context(self, hosts: Sequence[str], /) -> ssl.SSLContext:
        """Return the TLS context of the control plane's own authority."""
        return self._context(hosts)

    def metrics(self) -> str:
        """Return the metrics."""
        return self._metrics()

    def ready(self) -> bool:
        """Return whether requests are served."""
        return self.open

    def _check_open(self) -> None:
        if not self.open:
            raise Unavailable("the control plane is starting or stopping")
