"""A request whose body is a stream: one connection of its own, on which both directions are watched.

A pooled client reads the answer when it has sent the body, which may take hours here. So this one speaks HTTP/1.1
through h11 itself. It asks for a `100 Continue` (RFC 9110, section 10.1.1) and so knows that the request was taken
before it sends anything, and it reads all the time, so that the end of the other side is seen at once.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import h11
from anyio.abc import ByteStream as NetworkStream
from anyio.abc import SocketAttribute
from anyio.streams.tls import TLSStream
from attrs import define, evolve, field

from khonsu.transports.address import Address
from khonsu.transports.pool import NoAnswer, Reply, keep_alive

READ_BYTES: Final = 65536
OK: Final = 200

_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError, OSError)


@define(eq=False)
class Upload:
    """A request on its way. Opened by `open_upload`; then one task runs `watch`, while another sends."""

    _stream: NetworkStream
    _http: h11.Connection = field(factory=lambda: h11.Connection(h11.CLIENT))
    reply: Reply | None = None
    """The answer, once it is there whole."""
    failure: NoAnswer | None = None
    over: anyio.Event = field(factory=anyio.Event)
    """Set with either."""
    complete: bool = False
    """Whether the end of the body was sent."""

    async def begin(self, method: str, target: str, headers: Mapping[str, str]) -> bool:
        """Send the head; return whether the server takes the body, or has answered instead.

        Raises:
            NoAnswer: The connection was lost.

        """
        head = [*headers.items(), ("Transfer-Encoding", "chunked"), ("Expect", "100-continue")]
        await self._send(h11.Request(method=method, target=target, headers=head))
        event = await self._next()
        if isinstance(event, h11.InformationalResponse):
            return True
        await self._read_reply(event)
        return False

    async def send(self, data: bytes) -> None:
        """Send some of the body.

        Raises:
            NoAnswer: The connection was lost.

        """
        await self._send(h11.Data(data=data))

    async def finish(self) -> None:
        """Send the end of the body and wait for the answer.

        Raises:
            NoAnswer: The connection was lost.

        """
        if not self.over.is_set():
            self.complete = True
            await self._send(h11.EndOfMessage())
            await self.over.wait()

    async def watch(self, ended_early: Callable[[], None]) -> None:
        """Read until the answer is there or the connection is lost; calls back if that comes before `finish`."""
        try:
            await self._read_reply(await self._next())
        except NoAnswer as error:
            self.failure = error
        self.over.set()
        if not self.complete:
            ended_early()

    async def aclose(self) -> None:
        """Close the connection; a body that is not at its end arrives as cut."""
        await anyio.aclose_forcefully(self._stream)

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            try:
                await self._stream.send(data)
            except _LOST as error:
                raise NoAnswer("the connection was lost while sending") from error

    async def _next(self) -> h11.Event:
        """Return the next event of the answer."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._receive())
        except h11.RemoteProtocolError as error:
            raise NoAnswer(f"the answer is not HTTP or was cut ({error})") from error
        if not isinstance(event, h11.Event) or isinstance(event, h11.ConnectionClosed):
            raise NoAnswer("the server closed the connection without an answer")
        return event

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(READ_BYTES)
        except anyio.EndOfStream:
            return b""
        except _LOST as error:
            raise NoAnswer("the connection was lost") from error

    async def _read_reply(self, event: h11.Event) -> None:
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise NoAnswer("the answer does not begin like one")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        reply = Reply(status=event.status_code, headers=headers)
        chunks = []
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
        self.reply = evolve(reply, content=b"".join(chunks))


async def open_upload(
    address: Address, context: ssl.SSLContext, *, proxy: str | None, connect_seconds: float
) -> Upload:
    """Dial a server for one upload; nothing is sent yet.

    Raises:
        NoAnswer: There is no connection.

    """
    try:
        with anyio.fail_after(connect_seconds):
            stream = await _dial(address, proxy)
            try:
                return Upload(
                    await TLSStream.wrap(stream, hostname=address.host, ssl_context=context, standard_compatible=False)
                )
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except TimeoutError as error:
        raise NoAnswer("no connection came about in time") from error
    except (*_LOST, anyio.EndOfStream) as error:
        raise NoAnswer(str(error)) from error


async def _dial(address: Address, proxy: str | None) -> NetworkStream:
    """Return a connection to the server, if need be through a tunnel (RFC 9110, section 9.3.6)."""
    parts = urlsplit(proxy) if proxy is not None else None
    if parts is None or parts.hostname is None:
        return await _connected(address.host, address.port)
    stream = await _connected(parts.hostname, parts.port or 80)
    host = f"[{address.host}]" if ":" in address.host else address.host
    headers = [("Host", f"{host}:{address.port}")]
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers.append(("Proxy-Authorization", f"Basic {b64encode(login.encode()).decode('ascii')}"))
    try:
        await _tunnel(stream, f"{host}:{address.port}", headers)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return stream


async def _connected(host: str, port: int) -> NetworkStream:
    stream = await anyio.connect_tcp(host, port)
    keep_alive(stream.extra(SocketAttribute.raw_socket))  # noqa: S610 - not Django's
    return stream


async def _tunnel(stream: NetworkStream, target: str, headers: list[tuple[str, str]]) -> None:
    http = h11.Connection(h11.CLIENT)
    await stream.send(http.send(h11.Request(method="CONNECT", target=target, headers=headers)) or b"")
    while (event := http.next_event()) is h11.NEED_DATA:
        http.receive_data(await stream.receive(READ_BYTES))
    if not isinstance(event, h11.Response) or event.status_code != OK:
        status = event.status_code if isinstance(event, h11.Response) else "nothing"
        raise NoAnswer(f"the proxy answered {status}")
