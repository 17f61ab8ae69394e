from __future__ import annotations

import anyio
import pytest

from khonsu.api.limits import Limits
from khonsu.testing import Counterpart
from tests.api.raw import JSON, TOKEN, Line, dialled, served

pytestmark = pytest.mark.anyio

JOBS = "/api/v1/namespaces/default/jobs"
SYNC = "/api/v1/nodes/n/sync"
HEAD = f"POST {JOBS} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n"
SMALL = Limits(body_bytes_max=500, job_bytes_max=1000, sync_bytes_max=5000)
SCALE = f"{JOBS}/web/scale"
BRIEF = Limits(header_seconds_max=0.1, body_seconds_max=0.1, idle_seconds_max=0.1, discard_seconds_max=0.1)


class Syncing(Counterpart):
    """Also says how large a sync was."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = {**self._calls, "node.sync": self._echo, "job.scale": self._echo}


@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        (SCALE, 500, 200),
        (SCALE, 501, 413),
        (JOBS, 1000, 200),
        (JOBS, 1001, 413),
        (SYNC, 5000, 200),
        (SYNC, 5001, 413),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
async def test_a_large_body_is_refused(path: str, size: int, status: int, declared: bool) -> None:
    """A body over its limit is refused, whether its length is declared or found out; jobs and agents may send more."""
    content = b'{"job":"' + b"x" * (size - 10) + b'"}'
    async with served(Syncing(), limits=SMALL) as line:
        if declared:
            answer = await line.ask("POST", path, content, **JSON)
        else:
            chunked = f"{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n"
            answer = await line.ask("POST", path, chunked, **JSON, Content_Length="", Transfer_Encoding="chunked")
        assert (answer.status, len(content)) == (status, size)
        assert (await line.ask("GET", JOBS)).status == 200


async def test_a_huge_body_is_refused_before_it_came() -> None:
    """A declared length over the limit is refused at once, and its sender cut off when it does not stop."""
    async with served(limits=Limits(discard_seconds_max=0.1)) as line:
        answer = await line.ask("POST", JOBS, None, **JSON, Content_Length="9" * 15)
        assert answer.status == 413
        assert "4MiB" in answer.body["detail"]
        with anyio.fail_after(5):
            assert await line.closed() == b""


async def test_a_slow_body_is_refused() -> None:
    """A body that does not arrive in time is refused, and the connection ends."""
    async with served(limits=BRIEF) as line:
        await line.send(CHUNKED + b"1\r\n{\r\n")
        answer = await line.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert "100ms" in answer.body["detail"]
        with anyio.fail_after(5):
            assert await line.closed() == b""


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x"])
async def test_a_slow_head_is_cut_off(begun: bytes) -> None:
    """A connection on which no request comes to its end is closed."""
    async with served(limits=Limits(header_seconds_max=0.1)) as line:
        if begun:
            await line.send(begun)
        with anyio.fail_after(5):
            assert await line.closed() == b""


async def test_an_idle_connection_is_closed_after_a_while() -> None:
    """Keep-alive ends when no request follows; a second head that is slow is cut off, too."""
    async with served(limits=Limits(idle_seconds_max=0.1)) as line:
        assert (await line.ask("GET", JOBS)).status == 200
        with anyio.fail_after(5):
            assert await line.closed() == b""
    async with served(limits=Limits(header_seconds_max=0.1)) as line:
        assert (await line.ask("GET", JOBS)).status == 200
        await line.send(b"GET / HT")
        with anyio.fail_after(5):
            assert await line.closed() == b""


async def test_a_stranger_cannot_send_for_ever() -> None:
    """The body of a request that was refused is read for a short while only."""
    async with served(limits=Limits(discard_seconds_max=0.1)) as line:
        answer = await line.ask("POST", JOBS, None, Authorization="", Content_Length="", Transfer_Encoding="chunked")
        assert answer.status == 401
        with anyio.fail_after(5), pytest.raises(anyio.BrokenResourceError):
            await send_for_ever(line)


async def send_for_ever(line: Line) -> None:
    """Send one small part of a body after the other."""
    while True:
        await line.send(b"1\r\nx\r\n")
        await anyio.lowlevel.checkpoint()


async def test_a_refused_request_leaves_the_connection_usable() -> None:
    """The rest of a body that was refused is passed over, and the next request is served."""
    async with served(limits=SMALL) as line:
        for _ in range(3):
            assert (await line.ask("POST", JOBS, b"x" * 200_000, Authorization="")).status == 401
            assert (await line.ask("GET", JOBS)).status == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
    ],
)
async def test_what_is_no_request_is_refused(sent: bytes, status: int) -> None:
    """What is not HTTP, or has a head larger than 16 KiB, is a problem document, and the connection ends."""
    async with served() as line:
        await line.send(sent)
        answer = await line.answer()
        assert (answer.status, answer.body["type"]) == (status, "invalid-request")
        with anyio.fail_after(5):
            assert await line.closed() == b""


async def test_a_wait_has_a_limit() -> None:
    """A watch may be held for ten minutes, not more."""
    async with served() as line:
        assert (await line.ask("GET", f"{JOBS}?wait=10m")).status == 200
        assert "at most 10m" in (await line.ask("GET", f"{JOBS}?wait=601")).body["detail"]


async def test_pipelined_requests_are_answered_in_turn() -> None:
    """Requests that are sent without waiting have their answers in order."""
    request = f"GET {JOBS}?limit=%d HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    async with served() as line:
        await line.send(b"".join((request % number).encode() for number in range(20)))
        data = b""
        while b'"limit":19,' not in data:
            data += await line._stream.receive()
    found = [data.index(f'"limit":{number},'.encode()) for number in range(20)]
    assert found == sorted(found)


async def test_the_number_of_connections_has_a_limit() -> None:
    """Beyond it a request is told to come back later."""
    handler = Counterpart()
    async with served(handler, limits=Limits(connections_max=2)) as line:
        assert (await line.ask("GET", JOBS)).status == 200
        url = f"https://127.0.0.1:{line._stream.extra(anyio.abc.SocketAttribute.remote_port)}"
        async with dialled(url, handler) as second:
            assert (await second.ask("GET", JOBS)).status == 503
