"""A clock that a test sets, and TLS servers on real sockets."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from khonsu.env import SystemEnv

ServeTLS = Callable[[ssl.SSLContext], int]


class WallClock(SystemEnv):
    """The system with a wall clock that stands where a test puts it."""

    def __init__(self, wall: float) -> None:
        super().__init__()
        self.wall = wall

    def now(self) -> float:
        return self.wall


@pytest.fixture
def env() -> SystemEnv:
    """Return the system's own environment."""
    return SystemEnv()


@pytest.fixture
def serve_tls() -> Iterator[ServeTLS]:
    """Return a function that serves a TLS context on a loopback port and says "hello" to who completes a handshake."""
    with ExitStack() as stack:
        yield lambda context: stack.enter_context(_served(context))


@contextmanager
def _served(context: ssl.SSLContext) -> Iterator[int]:
    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) as tls:
                    tls.sendall(b"hello")
                    heard.append(tls.recv(100))

    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert [said for said in heard if said] == [], "a client said something before it knew the server"
