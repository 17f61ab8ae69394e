"""Starting what is measured: a single node in a fresh process, or in this one."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import anyio
from attrs import frozen

from khonsu.agent.agent import Agent
from khonsu.bench import processes
from khonsu.client.client import Client
from khonsu.control.plane import ControlPlane
from khonsu.drivers.binary import BinaryDriver
from khonsu.env import SystemEnv
from khonsu.stores.sqlite import SQLiteStore
from khonsu.transports.http import HTTPTransport

END_SECONDS = 20.0

T = TypeVar("T")


@frozen(kw_only=True)
class Started:
    """A node in a process of its own.

    Args:
        pid: The process.
        url: Where it serves.
        folder: Its data directory.
        seconds: How long it took from the start of the process until it could run a task.

    """

    pid: int
    url: str
    folder: Path
    seconds: float

    def transport(self) -> HTTPTransport:
        """Return a transport to it."""
        return HTTPTransport(self.url, ca=self.folder / "ca.pem")

    def context(self) -> ssl.SSLContext:
        """Return a TLS context that trusts it and nobody else."""
        return ssl.create_default_context(cafile=self.folder / "ca.pem")

    def client(self) -> Client:
        """Return a client of it."""
        token = (self.folder / "operator.token").read_text().strip()
        return Client(self.transport(), token=token)


@contextmanager
def fresh_process(*, bare: bool = False) -> Generator[Started, None, None]:
    """Own `khonsu dev`, or `khonsu server` if it is bare, in a process of its own.

    Raises:
        RuntimeError: It did not start; what it said is on standard error.

    """
    with processes.adopted_orphans(), folder() as place:
        kind = "server" if bare else "dev"
        options = ("--data-dir", str(place), "--listen", "127.0.0.1:0", "--json")
        command = [sys.executable, "-m", "khonsu", kind, *options]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                url = _address(process.stdout.readline()) if process.stdout else ""
                seconds = time.perf_counter() - began
                if not url:
                    raise RuntimeError("the node did not start")
                yield Started(pid=process.pid, url=url, folder=place, seconds=seconds)
            finally:
                family = processes.descendants(process.pid)
                process.terminate()
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                processes.end([pid for pid in family if processes.command(pid)])


def _address(line: str) -> str:
    """Return the address in what a server says when it is ready; nothing if it said nothing."""
    return str(json.loads(line)["address"]) if line else ""


@asynccontextmanager
async def beside(manager: AbstractContextManager[T]) -> AsyncGenerator[T, None]:
    """Enter and leave a context manager that blocks, without blocking the event loop."""
    env = SystemEnv()
    value = await env.run_blocking(manager.__enter__)
    try:
        yield value
    finally:
        with anyio.CancelScope(shield=True):
            await env.run_blocking(manager.__exit__, None, None, None)


@contextmanager
def folder() -> Generator[Path, None, None]:
    """Own an empty folder."""
    with tempfile.TemporaryDirectory(prefix="khonsu-bench-") as name:
        yield Path(name)


@asynccontextmanager
async def single_node(transport: str) -> AsyncGenerator[tuple[Client, int | None], None]:
    """Own a single node; yields a client that keeps its connection, and the node's process if that is not this one.

    Args:
        transport: `http`: a process of its own, reached over HTTPS; `inprocess`: in this process.

    Raises:
        ValueError: It is neither.

    """
    if transport == "http":
        async with beside(fresh_process()) as started:
            client = await SystemEnv().run_blocking(started.client)
            async with client:
                yield client, started.pid
    elif transport == "inprocess":
        async with (
            beside(folder()) as place,
            ControlPlane(store=SQLiteStore(place / "state.db"), data_dir=place) as plane,
            Agent(
                "node",
                transport=plane.transport(),
                drivers=[BinaryDriver()],
                data_dir=place / "agent",
                on_exit="stop",
            ),
            plane.client() as client,
        ):
            yield client, None
    else:
        raise ValueError(f"transport {transport!r} is not http or inprocess")
