"""Asking: how requests of a client go over its transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from khonsu.abc.transport import ByteStream, Connection, Identity, Request, Transport
from khonsu.core.codec import from_json
from khonsu.core.secret import Secret
from khonsu.env import Env

T = TypeVar("T")

PAGE_ROWS = 1_000


class Asker:
    """Makes requests: over one connection while it is open, otherwise over one for each."""

    def __init__(self, transport: Transport, credential: Secret | None) -> None:
        """Take the way to the control plane; nothing is dialled yet."""
        self._transport = transport
        self._identity = None if credential is None else Identity(credential=credential)
        self._connection: Connection | None = None
        self._stack: AsyncExitStack | None = None

    async def open(self) -> None:
        """Keep one connection from now on."""
        stack = AsyncExitStack()
        self._connection = await stack.enter_async_context(self._transport.connect(self._identity))
        self._stack = stack

    async def close(self, *exc_info: Any) -> None:
        """Let the connection go."""
        stack, self._stack, self._connection = self._stack, None, None
        if stack is not None:
            await stack.__aexit__(*exc_info)

    async def call(self, operation: str, body: Mapping[str, Any], *, key: str | None = None) -> Mapping[str, Any]:
        """Return the answer to a request; parameters that are None are left out.

        Raises:
            KhonsuError: The control plane refused it, or there was no answer.

        """
        request = Request(operation=operation, body=_given(body), idempotency_key=key)
        async with self._connected() as connection:
            return (await connection.call(request)).body

    async def pages(self, operation: str, kind: type[T], body: Mapping[str, Any]) -> tuple[T, ...]:
        """Return all that a list holds, page after page."""
        found: list[T] = []
        cursor: str | None = None
        while True:
            page = await self.call(operation, {**body, "limit": PAGE_ROWS, "cursor": cursor})
            found.extend(from_json(kind, item) for item in page["items"])
            cursor = page["next"]
            if cursor is None:
                return tuple(found)

    @asynccontextmanager
    async def stream(self, operation: str, body: Mapping[str, Any]) -> AsyncGenerator[ByteStream, None]:
        """Open a stream to the client."""
        request = Request(operation=operation, body=_given(body))
        async with self._connected() as connection, connection.stream(request) as stream:
            yield stream

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        if self._connection is not None:
            yield self._connection
            return
        async with self._transport.connect(self._identity) as connection:
            yield connection


class Asking:
    """Who asks: what all methods of a client need."""

    def __init__(self, asker: Asker, namespace: str, env: Env) -> None:
        """Ask in a namespace."""
        self._asker = asker
        self._env = env
        self.namespace = namespace


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}
