"""A lean connection over HTTPS, so that making the load leaves the machine to what is loaded.

It says what `HTTPTransport` says, and does without all that a user would miss: no pool, no retries, no streams.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

from khonsu.abc.transport import ByteStream, Connection, Request, Response
from khonsu.core.operations import Direction
from khonsu.core.protocol import PROTOCOL
from khonsu.errors import KhonsuError, Unreachable
from khonsu.transports.routing import PREFIX, PROTOCOL_HEADER, find_operation, split
from khonsu.transports.wire import decode, decode_error, encode

OK = 200
HANDSHAKE_SECONDS = 60.0


class LeanConnection(Connection):
    """One connection, for one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        """Speak over an open socket."""
        self._reader = reader
        self._writer = writer
        self._host = host

    async def call(self, request: Request, /) -> Response:
        """Make a request and return its answer."""
        operation = find_operation(request.operation, Direction.CALL)
        parts = split(operation, request.body)
        content = encode(parts.content or {})
        credential = f"Authorization: Bearer {request.credential.reveal()}\r\n" if request.credential else ""
        self._writer.write(
            f"{operation.method} {PREFIX}{parts.target} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"{PROTOCOL_HEADER}: {PROTOCOL}\r\n{credential}"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        try:
            status, body = await self._answer()
        except (OSError, EOFError, ValueError) as error:
            raise Unreachable(self._host, str(error) or "it cut the connection") from error
        if status != OK:
            raise decode_error(body) or KhonsuError(f"HTTP {status}")
        return Response(body=decode(body))

    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Refuse: it has no streams."""
        raise KhonsuError(f"{request.operation} is a stream, and this connection has none")

    async def _answer(self) -> tuple[int, bytes]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status, *lines = head.split("\r\n")
        lengths = [line for line in lines if line.startswith("content-length:")]
        body = await self._reader.readexactly(int(lengths[0].partition(":")[2])) if lengths else b""
        return int(status.split()[1]), body


@asynccontextmanager
async def lean_connection(url: str, context: ssl.SSLContext) -> AsyncGenerator[LeanConnection, None]:
    """Own a connection to a server."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        where.hostname, where.port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS
    )
    try:
        yield LeanConnection(reader, writer, where.netloc)
    finally:
        writer.close()
