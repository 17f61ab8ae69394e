"""uvicorn, as part of a program that is not its own: no signals, no logging of its own, an orderly end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import anyio
import uvicorn
from anyio.abc import TaskStatus

from khonsu.api.app import App
from khonsu.api.limits import Limits
from khonsu.api.protocol import protocol_class

TICK_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 0.1
"""For which a closed connection may still send; a peer that is idle would not even look at it."""


class HTTPServer:
    """Serves an application on sockets that are bound already."""

    def __init__(self, app: App, context: ssl.SSLContext, limits: Limits) -> None:
        """Configure uvicorn."""
        config = uvicorn.Config(
            app,
            interface="asgi3",
            http=protocol_class(limits),
            ws="none",
            loop="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=True,
            limit_concurrency=limits.connections_max,
            timeout_keep_alive=limits.idle_seconds_max,  # type: ignore[arg-type] # any number will do
            h11_max_incomplete_event_size=limits.header_bytes_max,
        )
        self._server = _Server(config, app, context, limits)

    async def run(
        self, sockets: Sequence[socket.socket], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until stopped."""
        self._server.when_started = task_status.started
        try:
            with anyio.CancelScope(shield=True):
                await self._server.serve(sockets=list(sockets))
        finally:
            self._server.stopped.set()

    async def stop(self) -> None:
        """End: take no more connections, and close those that are there."""
        self._server.ask_to_stop()
        await self._server.stopped.wait()


class _Server(uvicorn.Server):
    """uvicorn's server with its own ideas of signals and polling replaced."""

    def __init__(self, config: uvicorn.Config, app: App, context: ssl.SSLContext, limits: Limits) -> None:
        super().__init__(config)
        self._app = app
        self._context = context
        self._limits = limits
        self._stop = asyncio.Event()
        self.stopped = asyncio.Event()
        self.when_started: Any = lambda: None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals to the program."""
        yield

    def ask_to_stop(self) -> None:
        """End soon."""
        self.should_exit = True
        self._stop.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, with time limits that uvicorn does not know."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state={}, _loop=loop
            )

        self.servers = [
            await loop.create_server(
                protocol,
                sock=each,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_seconds_max,
                ssl_shutdown_timeout=CLOSE_SECONDS,
            )
            for each in sockets or ()
        ]
        await self.on_tick(0)  # sets the date of answers
        self.started = True
        self.when_started()

    async def main_loop(self) -> None:
        """Wait for the end; ten wake-ups a second would be most of what an idle server does."""
        while not await self.on_tick(0):
            with anyio.move_on_after(TICK_SECONDS):
                await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, end all requests, then close the connections that are left."""
        for server in self.servers:
            server.close()
        await self._app.stop()
        connections: set[Any] = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()
        await _until(lambda: not self.server_state.tasks, CLOSE_SECONDS)
        await _until(lambda: not connections, LINGER_SECONDS)
        for connection in list(connections):
            connection.abort()


async def _until(holds: Callable[[], bool], seconds_max: float) -> None:
    """Wait until something holds, which nobody tells of."""
    with anyio.move_on_after(seconds_max):
        while not holds():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
