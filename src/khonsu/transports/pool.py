"""Connections to one server that are kept and shared. The only module that knows which HTTP library that takes."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import anyio
from attrs import field, frozen

from khonsu.transports.address import Address
from khonsu.web import httpx

CONNECTIONS_MAX: Final = 256
# Less than the 75 s after which the server closes them, so that it is always us who close first.
IDLE_SECONDS: Final = 60.0

# A peer that vanished without a word is noticed after a minute and a half, also where nothing is sent for hours.
KEEP_ALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 4)), 45),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class NoAnswer(Exception):
    """There is no whole answer; the cause says why. It never leaves the transports: it becomes `Unreachable`."""


@frozen(kw_only=True)
class Reply:
    """An HTTP answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(factory=dict)
    content: bytes = b""


def keep_alive(connection: socket.socket) -> None:
    """Have the system notice when the peer of a connection vanishes."""
    for level, option, value in KEEP_ALIVE:
        connection.setsockopt(level, option, value)


class Pool:
    """Connections to one server, at most 256; each carries one request at a time."""

    def __init__(
        self,
        address: Address,
        context: ssl.SSLContext,
        *,
        proxy: str | None,
        connect_seconds: float,
        wait_seconds: float,
    ) -> None:
        """Dial nothing yet. `wait_seconds` is how long a request may wait for a connection when all are in use."""
        self._base = f"https://{address.authority}"
        self._extensions = {"timeout": {"connect": connect_seconds, "pool": wait_seconds, "read": None, "write": None}}
        self._transport = httpx.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            proxy=proxy,
            limits=httpx.Limits(max_connections=CONNECTIONS_MAX, keepalive_expiry=IDLE_SECONDS),
            socket_options=KEEP_ALIVE,
        )

    async def request(self, method: str, target: str, headers: Mapping[str, str], content: bytes | None) -> Reply:
        """Make a request and return the whole answer.

        Raises:
            NoAnswer: There is none.

        """
        download = await self.open(method, target, headers, content)
        try:
            return await download.read()
        finally:
            await download.aclose()

    async def open(
        self, method: str, target: str, headers: Mapping[str, str], content: bytes | None = None
    ) -> Download:
        """Make a request and return the answer as soon as it begins; the caller closes it.

        Raises:
            NoAnswer: There is none.

        """
        request = httpx.Request(
            method, self._base + target, headers=headers, content=content, extensions=self._extensions
        )
        with _mapped():
            return Download(await self._transport.handle_async_request(request))

    async def aclose(self) -> None:
        """Close all connections, also those that are in use."""
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()


class Download:
    """An answer on its way."""

    def __init__(self, response: httpx.Response) -> None:
        """Take what the library gives."""
        self._response = response
        self._chunks: AsyncGenerator[bytes, None] | None = None
        self.reply = Reply(status=response.status_code, headers=dict(response.headers))

    async def read(self) -> Reply:
        """Return the whole answer."""
        chunks = [chunk async for chunk in self.chunks()]
        return Reply(status=self.reply.status, headers=self.reply.headers, content=b"".join(chunks))

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over its content, once.

        Raises:
            NoAnswer: It was cut.

        """
        self._chunks = self._iterate()
        return self._chunks

    async def _iterate(self) -> AsyncGenerator[bytes, None]:
        stream: Any = self._response.stream
        with _mapped():
            async for chunk in stream:
                yield chunk

    async def aclose(self) -> None:
        """Give the connection back, or close it if the answer is not at its end."""
        with anyio.CancelScope(shield=True):
            await self._response.aclose()
            if self._chunks is not None:
                # The library's generators are nested and never closed; only at their end do they leave nothing behind.
                with suppress(NoAnswer):
                    async for _ in self._chunks:
                        pass


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise NoAnswer("no connection came about in time") from error
    except httpx.PoolTimeout as error:
        raise NoAnswer(f"all of its {CONNECTIONS_MAX} connections are in use") from error
    except httpx.HTTPError as error:
        raise NoAnswer(str(error)) from error
