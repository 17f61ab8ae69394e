"""The listener: HTTPS on a socket of our own, served by uvicorn inside the block."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import anyio
import anyio.to_thread

from khonsu.abc.transport import Handler, Listener
from khonsu.api.app import App
from khonsu.api.limits import Limits
from khonsu.api.server import HTTPServer
from khonsu.errors import InvalidRequest, KhonsuError, Unavailable
from khonsu.scopes import bare_task_group
from khonsu.transports.pool import keep_alive

DEFAULT_PORT: Final = 4747
PORT_MAX: Final = 65535
BACKLOG: Final = 2048

_ANY: Final = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - what a user writes, who means all of them


class HTTPListener(Listener):
    """Serves the HTTP API on one address, over TLS with the control plane's own authority. Needs asyncio.

    Args:
        address: `HOST:PORT`, `[ADDRESS]:PORT`, `HOST` (port 4747) or `:PORT` (all interfaces). Port 0 is a free one.
        advertise: The names and addresses by which others reach it; its certificate is for these, too.
        limits: How much anybody may ask.

    Raises:
        InvalidRequest: The address is none.

    """

    def __init__(
        self,
        address: str = f"127.0.0.1:{DEFAULT_PORT}",
        /,
        *,
        advertise: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """Check the address; nothing is bound yet."""
        self._host, self._port = _parse(address)
        self._advertise = tuple(advertise)
        self._limits = limits if limits is not None else Limits()

    @property
    def address(self) -> str:
        """Return the address as `HOST:PORT`."""
        return _joined(self._host, self._port)

    @asynccontextmanager
    async def serve(self, handler: Handler, /) -> AsyncGenerator[str, None]:
        """Serve a handler for the length of the block; yields its URL as soon as connections are taken.

        When the block is left, what is held ends at once, writes within three seconds, and connections are closed.

        Raises:
            Unavailable: The address is in use, is not of this machine, or may not be used.
            KhonsuError: The event loop is not asyncio's.

        """
        _ensure_asyncio()
        hosts = self._hosts()
        try:
            context = await anyio.to_thread.run_sync(handler.server_context, hosts)
        except ValueError as error:
            raise InvalidRequest(f"advertise: {error}", hint="Give names and addresses, without ports") from error
        sockets = await self._bind()
        server = HTTPServer(App(handler, hosts=hosts, limits=self._limits), context, self._limits)
        try:
            async with bare_task_group() as group:
                await group.start(server.run, sockets)
                try:
                    yield self._url(sockets[0].getsockname()[1])
                finally:
                    with anyio.CancelScope(shield=True):
                        await server.stop()
        finally:
            for each in sockets:
                each.close()

    def _hosts(self) -> tuple[str, ...]:
        own = (socket.gethostname(),) if self._host in _ANY else (self._host,)
        return tuple(dict.fromkeys((*self._advertise, *own)))

    def _url(self, port: int) -> str:
        host = self._host
        if host in _ANY:
            host = self._advertise[0] if self._advertise else "127.0.0.1"
        return f"https://{_joined(host, port)}"

    async def _bind(self) -> list[socket.socket]:
        """Return a listening socket for each address of the host, all with the same port."""
        host = None if self._host in ("", "*") else self._host
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except socket.gaierror as error:
            raise self._cannot(f"the name {self._host} is not known", "Use an address of this machine") from error
        sockets: list[socket.socket] = []
        port = self._port
        try:
            for family, kind, protocol, _, where in dict.fromkeys(found):
                try:
                    bound = _listening(family, kind, protocol, (where[0], port, *where[2:]))
                except OSError as error:
                    if sockets or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
                    continue  # a machine may know IPv6 by name only
                sockets.append(bound)
                port = bound.getsockname()[1]
        except OSError as error:
            for each in sockets:
                each.close()
            raise self._cannot(*_reason(error, self._port)) from error
        if not sockets:
            raise self._cannot(
                "it is not an address of this machine", "Use 127.0.0.1, 0.0.0.0, or one of its addresses"
            )
        return sockets

    def _cannot(self, cause: str, hint: str) -> Unavailable:
        return Unavailable(f"cannot listen on {self.address}: {cause}", hint=hint)


def _listening(family: int, kind: int, protocol: int, where: tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol)
    try:
        # A server that was just stopped leaves connections behind that would block the port for a minute.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        keep_alive(made)  # what it accepts inherits this
        made.setblocking(False)
        made.bind(where)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _reason(error: OSError, port: int) -> tuple[str, str]:
    """Return why an address cannot be used, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return (
            "another program listens there",
            f"Stop it (`ss -ltnp 'sport = :{port}'` names it; perhaps a server that still runs), or take another port",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not", "Use a port above 1023"
    return error.strerror or str(error), "Listen on another address"


def _ensure_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise KhonsuError(
            "HTTPListener serves on asyncio only, and this event loop is another",
            hint="Run the program with `anyio.run(main)`, or leave out the listener",
        ) from None


def _parse(address: str) -> tuple[str, int]:
    host, colon, port = address.strip().rpartition(":")
    if not colon or (host.count(":") and not host.startswith("[")):
        host, port = address.strip(), str(DEFAULT_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= PORT_MAX) or any(
        letter in host for letter in "/@[] "
    ):
        raise InvalidRequest(f"{address!r} is no address to listen on", hint='Write it as "127.0.0.1:4747"')
    return host, int(port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
