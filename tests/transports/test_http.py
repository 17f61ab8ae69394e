from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from khonsu.abc.transport import Identity, Request, SupportsPinning
from khonsu.core.protocol import PROTOCOL
from khonsu.core.secret import Secret
from khonsu.env import SystemEnv
from khonsu.errors import InvalidRequest, MalformedToken, NotFound, Unreachable, WrongAuthority
from khonsu.security.authority import Authority
from khonsu.security.tokens import JoinToken
from khonsu.testing import Counterpart, check_transport
from khonsu.transports.http import HTTPTransport
from tests.transports.servers import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from anyio.abc import TaskStatus

pytestmark = pytest.mark.anyio

GET = Request(operation="job.get", body={"namespace": "default", "name": "web"}, credential=Secret("kht1.a.b"))
LOGS = Request(operation="allocation.logs", body={"namespace": "default", "id": "count"}, credential=Secret("x"))
UPLOAD = Request(operation="node.stream", body={"node": "n", "id": "sink"}, credential=Secret("x"))
REQUESTS = [GET, LOGS, UPLOAD]


@asynccontextmanager
async def over_https(handler: Counterpart) -> AsyncGenerator[HTTPTransport, None]:
    """Serve over HTTPS on loopback."""
    async with serving(handler) as url:
        yield HTTPTransport(url, ca=handler.authority.certificate_pem)


async def asked(transport: HTTPTransport, request: Request = GET) -> None:
    """Make a request, of whichever kind, on a connection of its own."""
    async with transport.connect(None) as connection:
        if request.operation == "job.get":
            await connection.call(request)
            return
        async with connection.stream(request) as stream:
            if request.operation == "allocation.logs":
                await stream.receive()


async def test_it_is_a_transport() -> None:
    """The transport over HTTPS keeps all promises of the interface, on asyncio and on trio."""
    await check_transport(over_https)


# ------------------------------------------------------------------------------------------- why there is no answer


@asynccontextmanager
async def listening(answer: bytes, handler: Counterpart | None = None) -> AsyncGenerator[str, None]:
    """Answer whatever is asked with the same bytes and close; over TLS for a handler. Nothing at all if empty."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)

    async def serve(stream: ByteStream) -> None:
        async with stream:
            await stream.receive()
            if answer:
                await stream.send(answer)
            else:
                await anyio.sleep_forever()

    async def run(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        if handler is None:
            await listener.serve(serve)
        else:
            context = await anyio.to_thread.run_sync(handler.server_context, ["localhost"])
            await TLSListener(listener, context, standard_compatible=False).serve(serve)

    async with listener, anyio.create_task_group() as group:
        await group.start(run)
        yield f"https://127.0.0.1:{port}"
        group.cancel_scope.cancel()


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_a_server_that_is_not_there(request_: Request) -> None:
    """A refused connection says so, and what to check."""
    async with listening(b"") as url:
        pass
    with pytest.raises(Unreachable, match="the connection was refused") as caught:
        await asked(HTTPTransport(url, ca=Counterpart().authority.certificate_pem), request_)
    assert (caught.value.server, caught.value.retryable) == (url, True)
    assert "Check that the server runs" in caught.value.hint


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_a_name_that_nobody_knows(request_: Request) -> None:
    """A name that cannot be looked up is named."""
    transport = HTTPTransport("https://nowhere.invalid:1", ca=Counterpart().authority.certificate_pem)
    with pytest.raises(Unreachable, match=r"the name nowhere\.invalid is not known"):
        await asked(transport, request_)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_something_that_speaks_no_tls(request_: Request) -> None:
    """A server without TLS is told apart."""
    async with listening(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as url:
        with pytest.raises(Unreachable, match="the TLS handshake failed"):
            await asked(HTTPTransport(url, ca=Counterpart().authority.certificate_pem), request_)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "no Khonsu server .*HTTP 200"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\n<p/>", "no Khonsu server .*HTTP 502"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
            r"HTTP 302 and points to https://evil\.example/",
        ),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no answer from"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "no answer from"),
    ],
)
async def test_something_that_is_no_khonsu(request_: Request, answer: bytes, cause: str) -> None:
    """What another server answers is never taken for an answer, and redirects are not followed."""
    handler = Counterpart()
    async with listening(answer, handler) as url:
        with pytest.raises(Unreachable, match=cause):
            await asked(HTTPTransport(url, ca=handler.authority.certificate_pem), request_)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_a_server_that_never_answers(request_: Request) -> None:
    """After the time for answers it is given up; a request's own deadline goes first."""
    handler = Counterpart()
    async with listening(b"", handler) as url:
        transport = HTTPTransport(url, ca=handler.authority.certificate_pem, timeout="200ms")
        with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
            await asked(transport, request_)
        in_time = Request(
            operation=request_.operation, body=request_.body, credential=Secret("x"), deadline_seconds=0.1
        )
        with pytest.raises(Unreachable, match=r"no answer within 0\.1 s"):
            await asked(transport, in_time)


async def test_a_watch_may_be_held_for_longer() -> None:
    """The time for answers comes on top of that for which a watch is held."""
    handler = Counterpart()
    body = {"namespace": "default", "name": "web", "after": "1.1", "wait": 0.2}
    watch = Request(operation="job.result", body=body, credential=Secret("x"))
    async with over_https(handler) as transport:
        transport._timeout_seconds = 0.1
        with pytest.raises(Unreachable, match=r"no answer within 0\.3 s"):
            async with transport.connect(None) as connection:
                await connection.call(watch)


async def test_a_server_of_another_time() -> None:
    """A server that speaks another protocol is told apart from one that refuses."""
    handler = Counterpart()
    answer = f"HTTP/1.1 200 OK\r\nKhonsu-Protocol: {PROTOCOL + 2}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    async with listening(answer, handler) as url:
        with pytest.raises(InvalidRequest, match=f"speaks version {PROTOCOL + 2}"):
            await asked(HTTPTransport(url, ca=handler.authority.certificate_pem))


# ------------------------------------------------------------------------------------------------- whom it trusts


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_another_authority_is_refused(request_: Request) -> None:
    """A server of another authority hears nothing, and both fingerprints are told."""
    expected, handler = Authority.new(SystemEnv()), Counterpart()
    async with serving(handler) as url:
        with pytest.raises(WrongAuthority) as caught:
            await asked(HTTPTransport(url, ca=expected.certificate_pem), request_)
    assert caught.value.expected == str(expected.fingerprint)
    assert caught.value.found == str(handler.authority.fingerprint)
    assert not caught.value.retryable


async def test_a_name_that_the_certificate_has_not() -> None:
    """A server under a name that it does not know says how to give it that name."""
    handler = Counterpart()
    async with serving(handler) as url:
        transport = HTTPTransport(url.replace("127.0.0.1", "127.0.0.2"), ca=handler.authority.certificate_pem)
        with pytest.raises(Unreachable, match=r"not for 127\.0\.0\.2|refused") as caught:
            await asked(transport)
    assert caught.value.hint


async def test_a_fingerprint_is_enough() -> None:
    """The authority is learned from a server that proves to have the fingerprint, and kept."""
    handler = Counterpart()
    async with serving(handler) as url:
        transport = HTTPTransport(url, fingerprint=str(handler.authority.fingerprint))
        assert transport.authority is None
        for request in REQUESTS:
            await asked(transport, request)
        assert transport.authority == handler.authority.certificate_pem
        assert isinstance(transport, SupportsPinning)
        await asked(HTTPTransport(url).pinned(transport.authority))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.operation)
async def test_another_fingerprint_is_refused(request_: Request) -> None:
    """A server with another fingerprint hears nothing."""
    expected, handler = Authority.new(SystemEnv()), Counterpart()
    async with serving(handler) as url:
        with pytest.raises(WrongAuthority) as caught:
            await asked(HTTPTransport(url, fingerprint=str(expected.fingerprint)), request_)
    assert caught.value.found == str(handler.authority.fingerprint)


async def test_a_join_token_says_whom_to_trust() -> None:
    """A join token carries the fingerprint; with it nothing else is needed, and nobody else is spoken to."""
    handler = Counterpart()
    env = SystemEnv()
    good = JoinToken.new(handler.authority.fingerprint, env.token_bytes).text()
    bad = JoinToken.new(Authority.new(env).fingerprint, env.token_bytes).text()
    async with serving(handler) as url:
        async with HTTPTransport(url).connect(Identity(credential=good)) as connection:
            body = {"namespace": "default", "name": "web"}
            answer = await connection.call(Request(operation="job.get", body=body))
            assert answer.body["credential"] == good.reveal()
        async with HTTPTransport(url).connect(Identity(credential=bad)) as connection:
            with pytest.raises(WrongAuthority):
                await connection.call(Request(operation="job.get", body=body))


async def test_without_a_pin_nothing_is_said() -> None:
    """A server that nothing vouches for is not spoken to."""
    async with serving(Counterpart()) as url:
        with pytest.raises(InvalidRequest, match="which authority") as caught:
            await asked(HTTPTransport(url))
    assert "fingerprint=" in caught.value.hint


async def test_a_certificate_may_be_a_file(tmp_path: Path) -> None:
    """The authority's certificate is taken as text, as a path or as the text of a path."""
    handler = Counterpart()
    file = tmp_path / "ca.pem"
    file.write_text(handler.authority.certificate_pem)
    async with serving(handler) as url:
        for ca in (file, str(file), handler.authority.certificate_pem):
            await asked(HTTPTransport(url, ca=ca))


def test_what_cannot_be_trusted(tmp_path: Path) -> None:
    """A certificate that is none, a file that is not there, and two ways at once are refused at once."""
    authority = Authority.new(SystemEnv())
    url = "https://127.0.0.1:1"
    with pytest.raises(InvalidRequest, match="cannot be read"):
        HTTPTransport(url, ca=tmp_path / "missing.pem")
    with pytest.raises(InvalidRequest, match="holds no certificate"):
        HTTPTransport(url, ca="-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    with pytest.raises(InvalidRequest, match="both say whom to trust"):
        HTTPTransport(url, ca=authority.certificate_pem, fingerprint=str(authority.fingerprint))
    with pytest.raises(MalformedToken):
        HTTPTransport(url, fingerprint="khc1xyz")


# ---------------------------------------------------------------------------------------------- how it is reached


@asynccontextmanager
async def relaying(target: str, seen: list[bytes]) -> AsyncGenerator[str, None]:
    """Run a proxy that takes any CONNECT to one server; notes what it was asked."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = int(target.rpartition(":")[2])

    async def pump(source: ByteStream, sink: ByteStream) -> None:
        try:
            while True:
                await sink.send(await source.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await sink.aclose()

    async def serve(stream: ByteStream) -> None:
        async with stream:
            head = await stream.receive()
            seen.append(head)
            if b"Proxy-Authorization: Basic dTpw" not in head:
                await stream.send(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")
                return
            await stream.send(b"HTTP/1.1 200 Go on\r\n\r\n")
            async with await anyio.connect_tcp("127.0.0.1", port) as other, anyio.create_task_group() as group:
                group.start_soon(pump, stream, other)
                await pump(other, stream)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        group.cancel_scope.cancel()


async def test_a_proxy_is_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls and streams go through a proxy of the environment, which sees where they go and nothing else."""
    handler = Counterpart()
    seen: list[bytes] = []
    async with serving(handler, advertise=("khonsu.example",)) as url, relaying(url, seen) as proxy:
        transport = HTTPTransport("https://khonsu.example:4747", ca=handler.authority.certificate_pem)
        monkeypatch.setenv("HTTPS_PROXY", f"http://u:p@{proxy}")
        for request in REQUESTS:
            await asked(transport, request)
        assert [head.split(b"\r\n")[0] for head in seen] == [b"CONNECT khonsu.example:4747 HTTP/1.1"] * 3
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        for request in REQUESTS:
            with pytest.raises(Unreachable, match="407"):
                await asked(transport, request)


async def test_loopback_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked for a server on this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://nowhere.invalid:1")
    monkeypatch.setenv("ALL_PROXY", "http://nowhere.invalid:1")
    async with over_https(Counterpart()) as transport:
        for request in REQUESTS:
            await asked(transport, request)


async def test_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls one after the other share a connection; those at once have one each."""
    handler = Counterpart()
    seen: list[bytes] = []
    async with serving(handler, advertise=("khonsu.example",)) as url, relaying(url, seen) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://u:p@{proxy}")
        transport = HTTPTransport("https://khonsu.example", ca=handler.authority.certificate_pem)
        async with transport.connect(None) as connection:
            for _ in range(5):
                await connection.call(GET)
            assert len(seen) == 1
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(connection.call, GET)
            assert len(seen) <= 5
            with pytest.raises(NotFound):
                async with connection.stream(
                    Request(
                        operation="allocation.logs", body={"namespace": "a", "id": "refused"}, credential=Secret("x")
                    )
                ):
                    pass
            before = len(seen)
            await connection.call(GET)
            assert len(seen) == before


async def test_a_closed_connection_is_unreachable() -> None:
    """After its block a connection refuses."""
    async with over_https(Counterpart()) as transport:
        async with transport.connect(None) as connection:
            await connection.call(GET)
        with pytest.raises(Unreachable, match="was closed"):
            await connection.call(GET)


@pytest.mark.parametrize("token", ["", "a b", "a\r\nHost: evil", "ä", "x" * 5000])
async def test_a_token_that_cannot_be_sent(token: str) -> None:
    """A credential that is no token never becomes a header, and is not shown."""
    async with over_https(Counterpart()) as transport:
        with pytest.raises(MalformedToken) as caught:
            await asked(transport, Request(operation="job.get", body=GET.body, credential=Secret(token)))
        assert token[:5] == "" or token not in str(caught.value)
        with pytest.raises(InvalidRequest, match="idempotency key"):
            await asked(transport, Request(operation="job.get", body=GET.body, idempotency_key=token))
