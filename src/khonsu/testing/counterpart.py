"""A control plane that only says what it heard: the other end of a transport that is being checked."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from attrs import define, field

from khonsu.abc.oneway import Downward, Upward
from khonsu.abc.transport import ByteStream, Handler, Request, Response
from khonsu.env import Env, SystemEnv
from khonsu.errors import Conflict, KhonsuError, NotFound, all_errors
from khonsu.security.authority import Authority
from khonsu.security.serving import server_context

FACTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "invalid-job": {"problems": [{"path": "name", "found": "'ä'", "expected": "a name", "nearest": None}]},
    "not-found": {"kind": "job", "name": "wbe", "nearest": "web"},
    "unreachable": {"server": "https://elsewhere:4747", "cause": "it is a test"},
    "wrong-authority": {"server": "https://elsewhere", "cause": "no", "expected": "khc1a", "found": "khc1b"},
    "unsafe-file": {"path": "/tmp/ca.key"},  # noqa: S108 - only a name
}
"""What the errors know that know something."""

CHUNKS: Final = 200


def sample_error(code: str) -> KhonsuError:
    """Return an error of the tree by its code, with a hint and all its facts."""
    return all_errors()[code].from_facts(f"sample of {code} – ☾", "try again", FACTS.get(code, {}))


@define(eq=False)
class _Heard:
    """What happened so far."""

    echoed: int = 0
    begun: int = 0
    finished: int = 0
    reads_ended: int = 0
    streams_ended: int = 0
    uploads: dict[str, dict[str, Any]] = field(factory=dict)
    stream: Mapping[str, Any] = field(factory=dict)


class Counterpart(Handler):
    """Answers by the name of the operation; see the methods. Used from one event loop."""

    def __init__(self, env: Env | None = None) -> None:
        """Make an authority of its own, for servers with TLS."""
        self._env = env if env is not None else SystemEnv()
        self._heard = _Heard()
        self._release: anyio.Event | None = None
        self._calls: Mapping[str, Callable[[Request], Awaitable[Mapping[str, Any]]]] = {
            "job.get": self._echo,
            "job.list": self._echo,
            "job.submit": self._echo,
            "node.remove": self._echo,
            "job.plan": self._refuse,
            "job.scale": self._write,
            "job.stop": self._free,
            "job.result": self._hold,
            "job.revert": self._fail,
            "system.status": self._tell,
        }
        self.authority = Authority.new(self._env)

    # The handler.

    async def call(self, request: Request, /) -> Response:
        """Serve a request."""
        return Response(body=await self._calls[request.operation](request))

    @asynccontextmanager
    async def stream(self, request: Request, /) -> AsyncGenerator[ByteStream, None]:
        """Serve a stream."""
        name = str(request.body["id"])
        self._heard.stream = {"body": request.body, "credential": _revealed(request)}
        if name == "refused":
            raise NotFound("allocation", name, nearest="refuse", hint="ask for another")
        try:
            if request.operation == "allocation.logs":
                yield _Source(name)
            elif name == "leave":
                async with _leaving() as stream:
                    yield stream
            else:
                kept = self._heard.uploads[name] = {"received": "", "complete": False}
                yield _Sink(kept)
                kept["complete"] = True
        finally:
            self._heard.streams_ended += 1

    def server_context(self, hosts: Sequence[str], /) -> ssl.SSLContext:
        """Return a context with a certificate of its own authority."""
        return server_context(self.authority, hosts, self._env)

    def metrics(self) -> str:
        """Return one metric."""
        return "# TYPE khonsu_sample counter\nkhonsu_sample_total 1\n# EOF\n"

    def ready(self) -> bool:
        """Return that it is."""
        return True

    # The operations.

    async def _echo(self, request: Request) -> Mapping[str, Any]:
        """Say what was heard."""
        self._heard.echoed += 1
        return {
            "operation": request.operation,
            "body": request.body,
            "credential": _revealed(request),
            "idempotency_key": request.idempotency_key,
            "deadline_seconds": request.deadline_seconds,
        }

    async def _refuse(self, request: Request) -> Mapping[str, Any]:
        """Raise the error with the code that is asked for."""
        raise sample_error(str(request.body["code"]))

    async def _write(self, request: Request) -> Mapping[str, Any]:
        """Begin, and finish when it is freed."""
        self._heard.begun += 1
        self._release = self._release or anyio.Event()
        await self._release.wait()
        self._heard.finished += 1
        return {}

    async def _free(self, request: Request) -> Mapping[str, Any]:
        """Free what waits."""
        if self._release is not None:
            self._release.set()
        self._release = None
        return {}

    async def _hold(self, request: Request) -> Mapping[str, Any]:
        """Wait for ever, as a watch would in which nothing happens."""
        self._heard.begun += 1
        try:
            await anyio.sleep_forever()
        finally:
            self._heard.reads_ended += 1
        return {}

    async def _fail(self, request: Request) -> Mapping[str, Any]:
        """Fail as only a bug can."""
        raise LookupError("a detail of the inside")

    async def _tell(self, request: Request) -> Mapping[str, Any]:
        """Tell what happened so far."""
        heard = self._heard
        return {
            "echoed": heard.echoed,
            "stream": heard.stream,
            "begun": heard.begun,
            "finished": heard.finished,
            "reads_ended": heard.reads_ended,
            "streams_ended": heard.streams_ended,
            "uploads": heard.uploads,
        }


class _Source(Downward):
    """Bytes to the caller: `CHUNKS` of them, without end, or broken after the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    async def receive(self) -> bytes:
        """Return the next chunk."""
        self._count += 1
        if self._name == "count" and self._count > CHUNKS:
            raise anyio.EndOfStream
        if self._name == "broken" and self._count > 1:
            raise Conflict("the source is gone")
        if self._name == "silent" and self._count > 1:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()
        return f"{self._count}\n".encode()


class _Sink(Upward):
    """Bytes from the caller, kept."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept

    async def send(self, data: bytes, /) -> None:
        """Keep some bytes."""
        self._kept["received"] += data.decode("utf-8")


class _Leaving(Upward):
    """Bytes from the caller, of which only the first are wanted."""

    def __init__(self, block: anyio.CancelScope) -> None:
        self._block = block

    async def send(self, data: bytes, /) -> None:
        """End the stream."""
        self._block.cancel()


@asynccontextmanager
async def _leaving() -> AsyncGenerator[ByteStream, None]:
    with anyio.CancelScope() as block:
        yield _Leaving(block)
    if block.cancelled_caught:
        raise Conflict("nobody reads any more", hint="stop sending")


def _revealed(request: Request) -> str | None:
    return request.credential.reveal() if request.credential is not None else None
