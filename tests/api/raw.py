"""Requests as bytes, for what no client would send."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import h11
from attrs import frozen

from khonsu.api.listener import HTTPListener
from khonsu.security.trust import client_context
from khonsu.testing import Counterpart

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from anyio.abc import ByteStream

    from khonsu.api.limits import Limits

TOKEN = "kht1.someone.0123456789"
JSON = {"Content-Type": "application/json"}


@frozen
class Answer:
    """What came back; `headers` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The content as JSON."""
        body: dict[str, Any] = json.loads(self.content)
        return body


class Line:
    """One connection to a server."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await self._stream.send(data)

    async def answer(self, method: bytes = b"GET") -> Answer:
        """Read one answer."""
        # h11 wants to have sent the request itself.
        self._http.send(h11.Request(method=method, target=b"/", headers=[("Host", "x")]))
        self._http.send(h11.EndOfMessage())
        events: list[Any] = []
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                try:
                    self._http.receive_data(await self._stream.receive())
                except anyio.EndOfStream:
                    self._http.receive_data(b"")
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError
            elif not isinstance(event, h11.InformationalResponse):
                events.append(event)
        response = events[0]
        headers = {name.decode(): value.decode() for name, value in response.headers}
        content = b"".join(bytes(event.data) for event in events[1:-1])
        self._http = h11.Connection(h11.CLIENT)
        return Answer(response.status_code, headers, content)

    async def ask(self, method: str, target: str, content: bytes | None = None, **headers: str) -> Answer:
        """Make a request and read the answer; a header that is empty is left out."""
        named = {"Host": "localhost", "Authorization": f"Bearer {TOKEN}", **headers}
        if content is not None:
            named.setdefault("Content_Length", str(len(content)))
        lines = [f"{name.replace('_', '-')}: {text}" for name, text in named.items() if text]
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")
        await self.send(head + (content or b""))
        return await self.answer()

    async def closed(self) -> bytes:
        """Wait until the server closes, and return what it still sent."""
        data = b""
        try:
            while True:
                data += await self._stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data


@asynccontextmanager
async def dialled(url: str, handler: Counterpart) -> AsyncGenerator[Line, None]:
    """Open a connection to the server of a handler."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    stream = await anyio.connect_tcp(
        parts.hostname,
        parts.port,
        ssl_context=client_context(handler.authority.certificate_pem),
        tls_standard_compatible=False,
    )
    async with stream:
        yield Line(stream)


@asynccontextmanager
async def served(
    handler: Counterpart | None = None, *, limits: Limits | None = None, advertise: tuple[str, ...] = ()
) -> AsyncGenerator[Line, None]:
    """Serve a handler and open a connection to it."""
    served_handler = handler if handler is not None else Counterpart()
    async with (
        HTTPListener("127.0.0.1:0", advertise=advertise, limits=limits).serve(served_handler) as url,
        dialled(url, served_handler) as line,
    ):
        yield line
