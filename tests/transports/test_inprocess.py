from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.abc.transport import Connection, Identity, Request, Response
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, KhonsuError, NotFound, Unreachable
from khonsu.testing import Counterpart, check_transport
from khonsu.transports import inprocess
from khonsu.transports.inprocess import InProcessTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio

GET = Request(operation="job.get", body={"namespace": "default", "name": "web"})
WRITE = Request(operation="job.scale", body={"namespace": "default", "name": "web", "count": 2})
FREE = Request(operation="job.stop", body={"namespace": "default", "name": "web"})
TELL = Request(operation="system.status")


@asynccontextmanager
async def with_group_of_the_server(handler: Counterpart) -> AsyncGenerator[InProcessTransport, None]:
    """Serve as a control plane does: in its own task group."""
    async with anyio.create_task_group() as group:
        yield InProcessTransport(handler, task_group=group)
        group.cancel_scope.cancel()


class Stopped(Counterpart):
    stopped = False

    def ready(self) -> bool:
        return not self.stopped


@asynccontextmanager
async def with_own_group(handler: Counterpart) -> AsyncGenerator[InProcessTransport, None]:
    """Serve without a group: each connection brings one."""
    yield InProcessTransport(handler)


async def test_it_is_a_transport() -> None:
    """The transport in one process keeps all promises of the interface."""
    await check_transport(with_group_of_the_server)


async def asked(connection: Connection, request: Request = TELL) -> dict[str, object]:
    """Return the answer to a request."""
    return dict((await connection.call(request)).body)


async def until_begun(connection: Connection, count: int = 1) -> None:
    """Wait until the other side has begun to write."""
    while (await asked(connection))["begun"] != count:
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("identity", "own", "shown"),
    [(None, None, "transport"), ("identity", None, "identity"), ("identity", "own", "own"), (None, "own", "own")],
)
async def test_whose_credential_is_shown(identity: str | None, own: str | None, shown: str) -> None:
    """A request's own credential goes before the identity's, that before the transport's."""
    transport = InProcessTransport(Counterpart(), credential=Secret("transport"))
    who = Identity(credential=Secret(identity)) if identity else None
    request = Request(operation="job.get", body=GET.body, credential=Secret(own) if own else None)
    async with transport.connect(who) as connection:
        assert shown == (await asked(connection, request))["credential"]


async def test_a_connection_with_a_group_of_its_own_lets_writes_end() -> None:
    """Leaving a connection waits for a write that is under way, also when its caller was cancelled."""
    async with with_own_group(Counterpart()) as transport, transport.connect(None) as other:
        async with anyio.create_task_group() as group, transport.connect(None) as connection:
            group.start_soon(connection.call, WRITE)
            await until_begun(other)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await asked(other, FREE)
        assert (await asked(other))["finished"] == 1


async def test_a_write_that_hangs_does_not_hold_a_connection_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving a connection ends a write that does not end by itself."""
    monkeypatch.setattr(inprocess, "CLOSE_SECONDS", 0.01)
    async with with_own_group(Counterpart()) as transport, transport.connect(None) as other:
        with pytest.RaisesGroup(pytest.RaisesExc(Unreachable, match="stopped before it answered")):
            async with anyio.create_task_group() as group, transport.connect(None) as connection:
                group.start_soon(connection.call, WRITE)
                await until_begun(other)
        assert (await asked(other))["finished"] == 0


async def test_a_server_that_has_stopped_is_unreachable() -> None:
    """A handler that serves no more, a task group that ended, and a closed connection all say so."""
    handler = Stopped()
    async with with_own_group(handler) as transport, transport.connect(None) as connection:
        handler.stopped = True
        with pytest.raises(Unreachable, match="is not running"):
            await connection.call(TELL)
    with pytest.raises(Unreachable, match="was closed"):
        await connection.call(TELL)
    async with with_group_of_the_server(Counterpart()) as over:
        pass
    async with over.connect(None) as connection:
        with pytest.raises(Unreachable, match="is not running"):
            await connection.call(TELL)


async def test_a_failure_is_logged_with_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    """What went wrong inside is in the log of the server, not in the error of the caller."""
    revert = Request(operation="job.revert", body={"namespace": "default", "name": "web", "version": 1})
    async with InProcessTransport(Counterpart()).connect(None) as connection:
        with caplog.at_level(logging.ERROR), pytest.raises(KhonsuError, match=r"job\.revert failed"):
            await connection.call(revert)
    assert "a detail of the inside" in caplog.text


class Grouping(Counterpart):
    """Refuses out of a task group."""

    async def call(self, request: Request, /) -> Response:
        async with anyio.create_task_group() as group:
            group.start_soon(self._lose)
        return await super().call(request)

    async def _lose(self) -> None:
        raise NotFound("job", "web")


async def test_a_refusal_out_of_a_task_group_is_one() -> None:
    """A refusal that a task group of the handler wrapped is no failure."""
    async with InProcessTransport(Grouping()).connect(None) as connection:
        with pytest.raises(NotFound):
            await connection.call(TELL)


async def test_requests_that_make_no_sense_are_refused() -> None:
    """An operation that is not there, or is a stream, cannot be called, and a call is no stream."""
    async with InProcessTransport(Counterpart()).connect(None) as connection:
        for name in ("job.frobnicate", "allocation.logs", "node.stream"):
            with pytest.raises(InvalidRequest, match=name):
                await connection.call(Request(operation=name))
        with pytest.raises(InvalidRequest, match=r"job\.get"):
            async with connection.stream(GET):
                pass
        with pytest.raises(ValueError, match="JSON"):
            await connection.call(Request(operation="job.submit", body={"job": float("nan")}))


async def test_a_stream_goes_one_way() -> None:
    """The wrong direction of a stream is refused."""
    logs = Request(operation="allocation.logs", body={"namespace": "default", "id": "endless"})
    upload = Request(operation="node.stream", body={"node": "n", "id": "sink"})
    async with InProcessTransport(Counterpart()).connect(None) as connection:
        async with connection.stream(logs) as stream:
            with pytest.raises(InvalidRequest):
                await stream.send(b"x")
        async with connection.stream(upload) as stream:
            with pytest.raises(InvalidRequest):
                await stream.receive()


async def test_an_error_in_the_block_is_raised_bare() -> None:
    """What a user raises inside a connection or a stream is not wrapped into a group."""
    with pytest.raises(ZeroDivisionError):
        async with InProcessTransport(Counterpart()).connect(None):
            raise ZeroDivisionError
