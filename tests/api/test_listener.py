from __future__ import annotations

import gc
import logging
import signal
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from typing import Any

import anyio
import pytest
import trio

from khonsu.abc.transport import Identity, Request
from khonsu.api.limits import Limits
from khonsu.api.listener import HTTPListener
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, KhonsuError, Unavailable
from khonsu.testing import Counterpart
from khonsu.transports.http import HTTPTransport
from tests.api.raw import TOKEN, Line, dialled

pytestmark = pytest.mark.anyio

JOBS = "/api/v1/namespaces/default/jobs"
HELD = f"{JOBS}/web/result?after=1.1&wait=5m"


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("127.0.0.1:4747", "127.0.0.1:4747"),
        ("[::1]:0", "[::1]:0"),
        ("::1", "[::1]:4747"),
        ("khonsu.example", "khonsu.example:4747"),
        (":80", ":80"),
        (" localhost:1 ", "localhost:1"),
    ],
)
def test_how_addresses_are_written(address: str, parsed: str) -> None:
    """The port is 4747 if there is none."""
    assert HTTPListener(address).address == parsed


@pytest.mark.parametrize("address", ["x:y", "127.0.0.1:65536", "https://x:1", "a b:1", "[::1", "user@host:1", "x:-1"])
def test_what_is_no_address(address: str) -> None:
    """What cannot be listened on is refused at once."""
    with pytest.raises(InvalidRequest, match="no address to listen on"):
        HTTPListener(address)


async def test_a_free_port_is_found() -> None:
    """Port 0 is a free one, and the address that is yielded has it."""
    handler = Counterpart()
    async with HTTPListener("127.0.0.1:0").serve(handler) as url, HTTPListener("127.0.0.1:0").serve(handler) as other:
        assert url != other
        async with dialled(url, handler) as line, dialled(other, handler) as second:
            assert [(await each.ask("GET", JOBS)).status for each in (line, second)] == [200, 200]


async def test_a_port_that_is_taken_is_named() -> None:
    """A second server on a port says which, and what to do."""
    handler = Counterpart()
    async with HTTPListener("127.0.0.1:0").serve(handler) as url:
        taken = url.removeprefix("https://")
        with pytest.raises(Unavailable, match=f"cannot listen on {taken}: another program listens there") as caught:
            async with HTTPListener(taken).serve(handler):
                pass
    assert f":{taken.rpartition(':')[2]}" in caught.value.hint


@pytest.mark.parametrize(
    ("address", "cause"), [("192.0.2.1:0", "not an address of this machine"), ("nowhere.invalid:0", "is not known")]
)
async def test_an_address_that_is_not_ours_is_refused(address: str, cause: str) -> None:
    """An address of another machine, and a name that nobody knows, are refused in plain words."""
    with pytest.raises(Unavailable, match=cause):
        async with HTTPListener(address).serve(Counterpart()):
            pass


async def test_a_port_can_be_used_again_at_once() -> None:
    """A server that was stopped leaves its port to the next, also where it closed connections itself."""
    handler = Counterpart()
    address = "127.0.0.1:0"
    for _ in range(3):
        async with HTTPListener(address).serve(handler) as url, dialled(url, handler) as line:
            address = url.removeprefix("https://")
            assert (await line.ask("GET", JOBS, Connection="close")).status == 200


async def test_names_that_are_advertised_are_served() -> None:
    """The certificate is for the names that are advertised; all interfaces are known by the first of them."""
    handler = Counterpart()
    async with HTTPListener("0.0.0.0:0", advertise=["khonsu.example", "192.0.2.7"]).serve(handler) as url:
        assert url.startswith("https://khonsu.example:")
        context = ssl.create_default_context(cadata=handler.authority.certificate_pem)
        for name in ("khonsu.example", "192.0.2.7", socket.gethostname(), "localhost"):
            stream = await anyio.connect_tcp(
                "127.0.0.1", int(url.rpartition(":")[2]), ssl_context=context, tls_hostname=name
            )
            await stream.aclose()
    async with HTTPListener("0.0.0.0:0").serve(handler) as url:
        assert url.startswith("https://127.0.0.1:")


async def test_a_name_that_is_none_is_refused() -> None:
    """What no certificate can name is refused before anything listens."""
    with pytest.raises(InvalidRequest, match="advertise"):
        async with HTTPListener("127.0.0.1:0", advertise=["https://x"]).serve(Counterpart()):
            pass


async def test_held_requests_end_when_the_server_stops() -> None:
    """A watch is answered with a refusal that can be tried again, and a stream is cut; neither holds up the end."""
    handler = Counterpart()
    errors: list[KhonsuError] = []

    async def hold() -> None:
        request = Request(operation="job.result", body={"namespace": "default", "name": "web", "wait": 300.0})
        try:
            async with transport.connect(Identity(credential=Secret(TOKEN))) as connection:
                await connection.call(request)
        except KhonsuError as error:
            errors.append(error)

    async def read() -> None:
        request = Request(operation="allocation.logs", body={"namespace": "default", "id": "silent"})
        try:
            async with (
                transport.connect(Identity(credential=Secret(TOKEN))) as connection,
                connection.stream(request) as stream,
            ):
                await stream.receive()
                reading.set()
                await stream.receive()
        except KhonsuError as error:
            errors.append(error)

    reading = anyio.Event()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, HTTPListener("127.0.0.1:0").serve(handler) as url:
            transport = HTTPTransport(url, ca=handler.authority.certificate_pem)
            group.start_soon(hold)
            group.start_soon(read)
            await reading.wait()
            while not handler._heard.begun:
                await anyio.lowlevel.checkpoint()
    assert sorted(type(error).__name__ for error in errors) == ["Unavailable", "Unreachable"]
    assert [error.retryable for error in errors] == [True, True]
    assert handler._heard.streams_ended == 1


async def test_a_write_may_end_when_the_server_stops() -> None:
    """A write that is under way is waited for, and its answer still arrives; one that hangs is not."""
    handler = Counterpart()
    write = "/api/v1/namespaces/default/jobs/web/scale"
    answers = []

    async def ask(url: str) -> None:
        async with dialled(url, handler) as line:
            answers.append(await line.ask("POST", write, b""))

    for seconds_max, status in ((5.0, 200), (0.05, 503)):
        async with anyio.create_task_group() as group:
            limits = Limits(stop_seconds_max=seconds_max)
            async with HTTPListener("127.0.0.1:0", limits=limits).serve(handler) as url:
                begun = handler._heard.begun
                group.start_soon(ask, url)
                while handler._heard.begun == begun:
                    await anyio.lowlevel.checkpoint()
                if status == 200:
                    group.start_soon(free_soon, handler)
        assert answers[-1].status == status


async def free_soon(handler: Counterpart) -> None:
    """Let the write of a handler go on a moment later."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    await handler.call(Request(operation="job.stop"))


async def test_connections_end_with_the_server() -> None:
    """Idle connections, half a request and half a handshake do not hold up the end."""
    handler = Counterpart()
    with anyio.fail_after(5):
        async with HTTPListener("127.0.0.1:0").serve(handler) as url:
            port = int(url.rpartition(":")[2])
            idle = await anyio.connect_tcp("127.0.0.1", port)
            async with dialled(url, handler) as line, dialled(url, handler) as half:
                assert (await line.ask("GET", JOBS)).status == 200
                await half.send(b"POST / HTTP/1.1\r\nHost: x\r\n")
    await idle.aclose()


async def test_signals_and_logging_are_left_alone() -> None:
    """Serving changes neither the handlers of signals nor the configuration of logging."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    loggers = {name: logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")}
    async with HTTPListener("127.0.0.1:0").serve(Counterpart()):
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        assert [(each.handlers, each.level, each.propagate) for each in loggers.values()] == [([], 0, True)] * 3


async def test_an_error_in_the_block_is_raised_bare() -> None:
    """What the block raises is not wrapped into a group, and the server ends all the same."""
    with pytest.raises(ZeroDivisionError):
        async with HTTPListener("127.0.0.1:0").serve(Counterpart()) as url:
            raise ZeroDivisionError
    with pytest.raises(OSError, match="connection attempts failed"):
        await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))


async def test_another_event_loop_is_refused() -> None:
    """On trio the listener says what to do."""

    async def main() -> None:
        async with HTTPListener("127.0.0.1:0").serve(Counterpart()):
            pass

    def run() -> None:
        with pytest.raises(KhonsuError, match="asyncio only"):
            trio.run(main)

    await anyio.to_thread.run_sync(run)


async def test_plain_http_gets_nothing() -> None:
    """Without TLS there is no answer."""
    async with HTTPListener("127.0.0.1:0").serve(Counterpart()) as url:
        stream = await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            await stream.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with anyio.fail_after(5):
                assert not (await Line(stream).closed()).startswith(b"HTTP")


async def test_a_slow_handshake_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that never shakes hands is closed."""
    limits = Limits(handshake_seconds_max=0.1)
    async with HTTPListener("127.0.0.1:0", limits=limits).serve(Counterpart()) as url:
        stream = await anyio.connect_tcp("127.0.0.1", int(url.rpartition(":")[2]))
        async with stream:
            with anyio.fail_after(5), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()


async def test_a_connection_takes_little_memory() -> None:
    """The buffer that asyncio gives each TLS connection is cut down to one TLS record."""
    handler = Counterpart()
    listener = HTTPListener("127.0.0.1:0")
    async with listener.serve(handler) as url, dialled(url, handler) as line:
        assert (
            await line.ask("POST", JOBS, b'{"job":"' + b"x" * 500_000 + b'"}', Content_Type="application/json")
        ).status == 200
        sizes = buffers()
    assert set(sizes) == {16 * 1024}


def buffers() -> list[int]:
    """Return the sizes of the buffers of all TLS connections of asyncio in this process."""
    found: list[Any] = [each for each in gc.get_objects() if isinstance(each, SSLProtocol)]
    return [len(each._ssl_buffer) for each in found if each._transport is not None]
