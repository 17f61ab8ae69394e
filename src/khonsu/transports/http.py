"""The transport over HTTPS: keep-alive connections to one server, whose authority is pinned.

A request is sent once. When no answer comes, it is not known whether it was carried out, and the caller decides:
reads can be repeated, writes with their idempotency key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from khonsu.abc.transport import ByteStream, Connection, Identity, Request, Response, Transport
from khonsu.core.operations import Direction
from khonsu.core.units import DurationLike, seconds
from khonsu.env import Env, SystemEnv
from khonsu.transports.address import Address
from khonsu.transports.dialling import Dialled
from khonsu.transports.http_streams import downward, upward
from khonsu.transports.pinned import Pinned
from khonsu.transports.pool import Reply
from khonsu.transports.routing import find_operation, split
from khonsu.transports.wire import decode, encode


class HTTPTransport(Transport):
    """A way to a server over HTTPS. Works on asyncio and trio.

    Args:
        url: The server, `https://HOST:PORT`.
        ca: The certificate of its authority: PEM text, or the path of a file with it.
        fingerprint: The fingerprint of its authority (`khc1...`), if the certificate is not at hand: then it is asked
            for, and checked, before anything is said. With neither, a join token says whom to trust.
        timeout: How long an answer may take, on top of what a watch is held; a request's own deadline replaces it.
        env: The environment, for the thread that asks for the authority.

    Raises:
        InvalidRequest: The URL is not that of a server with HTTPS, or the certificate cannot be read.
        MalformedToken: The fingerprint is none.

    """

    def __init__(
        self,
        url: str,
        /,
        *,
        ca: str | Path | None = None,
        fingerprint: str | None = None,
        timeout: DurationLike = 30.0,
        env: Env | None = None,
    ) -> None:
        """Check what is given; nothing is dialled yet."""
        self._address = Address.parse(url)
        self._env = env if env is not None else SystemEnv()
        self._pinned = Pinned(self._address, ca=ca, fingerprint=fingerprint, env=self._env)
        self._timeout_seconds = seconds(timeout)

    @property
    def url(self) -> str:
        """Return the server's URL."""
        return str(self._address)

    @property
    def authority(self) -> str | None:
        """Return the certificate (PEM) of the authority that is trusted, or None while it is not known."""
        return self._pinned.authority

    def pinned(self, authority: str, /) -> HTTPTransport:
        """Return such a transport to the same server that trusts this authority (PEM) and nobody else."""
        return HTTPTransport(self.url, ca=authority, timeout=self._timeout_seconds, env=self._env)

    @asynccontextmanager
    async def connect(self, identity: Identity | None, /) -> AsyncGenerator[Connection, None]:
        """Own connections to the server; the first request dials."""
        credential = identity.credential if identity is not None else None
        server = Dialled(self._address, self._pinned, credential, timeout_seconds=self._timeout_seconds)
        try:
            yield _HTTPConnection(server)
        finally:
            await server.aclose()


class _HTTPConnection(Connection):
    def __init__(self, server: Dialled) -> None:
        self._server = server

    async def call(self, request: Request, /) -> Response:
        """Make a request and return its answer."""
        operation = find_operation(request.operation, Direction.CALL)
        parts = split(operation, request.body)
        content = encode(parts.content) if parts.content is not None else None
        headers = self._server.headers(request, content_type="application/json" if content is not None else None)

        async def ask() -> Reply:
            pool = await self._server.pool(request)
            return await pool.request(operation.method, self._server.target(parts), headers, content)

        reply = await self._server.in_time(request, ask)
        self._server.check(reply)
        return Response(body=decode(reply.content))

    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Open a stream."""
        operation = find_operation(request.operation, Direction.DOWN, Direction.UP)
        open_stream = upward if operation.direction is Direction.UP else downward
        return open_stream(self._server, request, operation)
