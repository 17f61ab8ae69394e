"""Runs the programs of `program.py`, and starts them again when they have died."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import anyio
from attrs import frozen

from khonsu.client.client import Client
from khonsu.errors import Unavailable, Unreachable
from khonsu.security.trust import client_context
from khonsu.supervisor.processes import look
from khonsu.transports.http import HTTPTransport
from tests.api.raw import Line
from tests.faults.program import Eager

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

    from anyio.abc import TaskStatus

T = TypeVar("T")

PROGRAM = Path(__file__).with_name("program.py")
KEPT = ("PATH", "LANG", "HOME", "COVERAGE_PROCESS_START")
SECONDS_MAX = 50.0
PAUSE_SECONDS = 0.02
LIVES_MAX = 100


class Forks:
    """A process that has loaded everything, and forks the programs."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders

    def start(self, **order: Any) -> Started:
        """Start a program."""
        reading, writing = os.pipe()
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [writing])
        finally:
            os.close(writing)
        return Started(reading)


class Started:
    """One run of a program."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._rest = b""
        self.killed: str | None = None
        """The step at which it killed itself."""

    async def says(self, name: str) -> str | None:
        """Return what it says under a name; None if it dies instead."""
        while (facts := await self._line()) is not None:
            self.killed = facts.get("killed", self.killed)
            if name in facts:
                return str(facts[name])
        os.close(self._pipe)
        return None

    async def _line(self) -> dict[str, Any] | None:
        while b"\n" not in self._rest:
            await anyio.wait_readable(self._pipe)
            data = os.read(self._pipe, 2**16)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        facts: dict[str, Any] = json.loads(line)
        return facts


@contextmanager
def forks() -> Iterator[Forks]:
    """Own the process that forks programs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    with (
        ours,
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(theirs.fileno())],
            cwd=PROGRAM.parents[2],
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        ) as process,
    ):
        theirs.close()
        try:
            yield Forks(ours)
        finally:
            process.kill()


class Kept:
    """A program that dies once in the life of each job, at the next step each time, and is started again."""

    def __init__(self, forked: Forks, *named: str, **order: Any) -> None:
        self._forks = forked
        self._named = named
        self._order = order
        self.job = 0
        self.killed: list[str] = []
        """The steps at which it died."""
        self.address = ""
        self._pid = 0

    def kill_job(self) -> str:
        """Return the name of the job in whose life it dies the next time."""
        return f"job-{self.job}"

    async def lives(self) -> AsyncGenerator[str, None]:
        """Yield the jobs in whose lives it dies, and the one that is over before it would."""
        while self.job < LIVES_MAX:
            life = self.job
            yield self.kill_job()
            if life < len(self._named):
                # A step with a name is there in each life, though perhaps at its very end.
                await until(partial(self._died, life))
            elif life == self.job:
                return
        raise AssertionError("it has more steps than there can be")

    async def _died(self, life: int) -> bool:
        return self.job > life

    def _kill_at(self) -> str | int:
        """Return the step of that life: those with a name, and then one after the other."""
        return self._named[self.job] if self.job < len(self._named) else self.job - len(self._named) + 1

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep it running until cancelled, and kill it then; `task_status` is told when it serves."""
        first = True
        try:
            while True:
                made = self._forks.start(kill_job=self.kill_job(), kill_at=self._kill_at(), **self._order)
                with anyio.CancelScope(shield=True):  # who is not known could not be ended
                    pid = await made.says("pid")
                assert pid is not None
                self._pid = int(pid)
                ended = os.pidfd_open(self._pid)
                try:
                    said = await made.says("address" if self._order["run"] == "control" else "node")
                    if said is not None:
                        self.address = said
                        self._order["listen"] = said.removeprefix("https://")
                        if first:
                            task_status.started()
                            first = False
                        await made.says("nothing")
                    assert made.killed is not None, "the program ended by itself; see its standard error"
                    self.killed.append(made.killed)
                    self.job += 1
                    await anyio.wait_readable(ended)
                finally:
                    os.close(ended)
        finally:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)


@frozen
class Server:
    """A control plane that runs in a process of its own."""

    folder: Path
    address: str

    @property
    def token(self) -> str:
        """Return the operator's token."""
        return (self.folder / "operator.token").read_text().strip()

    def client(self) -> Client:
        """Return a client of it."""
        return a_client(self.folder, self.address)

    @asynccontextmanager
    async def line(self) -> AsyncGenerator[Line, None]:
        """Open a connection for requests as bytes."""
        where = urlsplit(self.address)
        context = client_context((self.folder / "ca.pem").read_text())
        stream = await anyio.connect_tcp(
            str(where.hostname), where.port or 0, ssl_context=context, tls_standard_compatible=False
        )
        async with stream:
            yield Line(stream)


def a_client(folder: Path, url: str) -> Client:
    """Return a client of a control plane whose data are in a folder."""
    token = (folder / "operator.token").read_text().strip()
    return Client(HTTPTransport(url, ca=folder / "ca.pem"), token=token, env=Eager())


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer."""
    with anyio.fail_after(SECONDS_MAX):
        while True:
            try:
                return await ask()
            except (Unreachable, Unavailable):
                await anyio.sleep(PAUSE_SECONDS)


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look until there is something, and return it."""
    with anyio.fail_after(SECONDS_MAX):
        while not (found := await look()):  # noqa: ASYNC110 - nothing tells us
            await anyio.sleep(PAUSE_SECONDS)
    return found


async def words(file: Path, count: int) -> list[str]:
    """Return the words that tasks have written into a file, once there are so many."""

    async def look() -> list[str] | None:
        found = file.read_text().split() if file.exists() else []  # noqa: ASYNC240 - a few bytes in memory
        return found if len(found) >= count else None

    return await until(look)


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    process = look(pid)
    return process is not None and not process.zombie
