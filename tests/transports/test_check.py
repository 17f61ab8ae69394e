"""The check of transports finds those that are wrong."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from attrs import evolve

from khonsu.abc.transport import ByteStream, Connection, Identity, Request, Response, Transport
from khonsu.core.secret import Secret
from khonsu.errors import KhonsuError
from khonsu.scopes import bare
from khonsu.testing import Counterpart, TransportCheckFailed, check_transport
from khonsu.transports.inprocess import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio


class Wrong(Connection):
    """A connection that is right so far."""

    def __init__(self, right: Connection) -> None:
        self.right = right

    async def call(self, request: Request, /) -> Response:
        """Pass a request on."""
        return await self.right.call(request)

    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Pass a stream on."""
        return self.right.stream(request)


class AsksTwice(Wrong):
    """Makes a request again as if it could not do harm."""

    async def call(self, request: Request, /) -> Response:
        """Make a request twice."""
        if request.operation == "job.submit":
            await self.right.call(request)
        return await self.right.call(request)


class StreamsAsAnother(Wrong):
    """Takes streams for somebody else's."""

    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Open a stream with another credential."""
        return self.right.stream(evolve(request, credential=Secret("kht1.somebody.else")))


class LosesParameters(Wrong):
    """Forgets what a stream is to be like."""

    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Open a stream without one of its parameters."""
        return self.right.stream(evolve(request, body={k: v for k, v in request.body.items() if k != "follow"}))


class _Transport(Transport):
    def __init__(self, right: Transport, kind: type[Wrong]) -> None:
        self.right = right
        self.kind = kind

    @asynccontextmanager
    async def connect(self, identity: Identity | None, /) -> AsyncGenerator[Connection, None]:
        """Own a connection."""
        async with self.right.connect(identity) as connection:
            yield self.kind(connection)


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (AsksTwice, "a request is made once"),
        (StreamsAsAnother, "credential goes along with a stream"),
        (LosesParameters, "the parameters of a stream"),
    ],
)
async def test_a_wrong_transport_is_found(kind: type[Wrong], promise: str) -> None:
    """What it does wrong is told by the promise that it breaks."""

    @asynccontextmanager
    async def make(handler: Counterpart) -> AsyncGenerator[Transport, None]:
        async with anyio.create_task_group() as group:
            yield _Transport(InProcessTransport(handler, task_group=group), kind)
            group.cancel_scope.cancel()

    found: BaseException | None = None
    try:
        await check_transport(make)
    except (KhonsuError, TransportCheckFailed, ExceptionGroup) as error:
        found = bare(error)
    assert isinstance(found, TransportCheckFailed)
    assert promise in str(found)
