"""An agent that is cut off for a minute, by a proxy between it and the control plane."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.agent.agent import Agent
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Constraint, Job, Update
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.env import SystemEnv
from khonsu.stores.memory import MemoryStore
from khonsu.transports.http import HTTPTransport
from tests.faults.running import alive, until, words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from anyio.abc import ByteStream, SocketStream

    from khonsu.client.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end]

A = AllocationStatus
HASTE = 20.0


class Hasty(SystemEnv):
    """A clock on which a minute passes in three seconds."""

    def monotonic(self) -> float:
        """Return a clock that runs faster."""
        return super().monotonic() * HASTE

    async def sleep(self, seconds: float) -> None:
        """Sleep on that clock."""
        await super().sleep(seconds / HASTE)


class Proxy:
    """Passes bytes on between an agent and a server, unless it is cut: then nothing comes through any more."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[anyio.CancelScope] = set()
        self.is_cut = False
        self.address = ""

    @asynccontextmanager
    async def serve(self) -> AsyncGenerator[None, None]:
        """Serve for the length of the block."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.address = f"https://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with listener, anyio.create_task_group() as group:
            group.start_soon(partial(listener.serve, self._pass_on))
            yield
            group.cancel_scope.cancel()

    def cut(self) -> None:
        """Cut all connections; new ones find nobody."""
        self.is_cut = True
        for scope in self._open:
            scope.cancel()

    async def _pass_on(self, near: SocketStream) -> None:
        if self.is_cut:
            await near.aclose()
            return
        async with near, await anyio.connect_tcp("127.0.0.1", self._port) as far, anyio.create_task_group() as group:
            self._open.add(group.cancel_scope)
            group.start_soon(self._copy, near, far, group.cancel_scope)
            group.start_soon(self._copy, far, near, group.cancel_scope)
        self._open.discard(group.cancel_scope)

    @staticmethod
    async def _copy(source: ByteStream, sink: ByteStream, scope: anyio.CancelScope) -> None:
        try:
            while True:
                await sink.send(await source.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            scope.cancel()


def a_job(name: str, folder: Path, **fields: Any) -> Job:
    """Return a service of one copy that says its pid in a file."""
    config = BinaryConfig("sh", args=["-c", f'echo $$ >> "{folder}/{name}"; exec sleep 1000'])
    return Job.single(name, config, update=Update(healthy_for=0.0), disk="1MiB", **fields)


async def on(client: Client, job: str, node: str) -> bool:
    """Return whether a job has a running copy on a node."""
    return any((one.node, one.status) == (node, A.RUNNING) for one in await client.allocations(job=job))


async def has(client: Client, node: str, status: NodeStatus) -> bool:
    """Return whether a node has a status."""
    return (await client.node(node)).status is status


async def test_without_network_for_a_minute(tmp_path: Path) -> None:
    """Its tasks run on; what was replaced meanwhile is there once in the end, and what could not be is as it was."""
    env = Hasty()
    async with (
        ControlPlane(store=MemoryStore(), listeners=[HTTPListener("127.0.0.1:0")], env=env) as plane,
        plane.client() as client,
    ):
        proxy = Proxy(int(plane.addresses[0].rpartition(":")[2]))
        settings: dict[str, Any] = {"on_exit": "stop", "env": env}
        here = [Constraint("label.at", "=", "far")]
        async with proxy.serve():
            far = Agent(
                "far",
                transport=HTTPTransport(proxy.address, env=env),
                drivers=[BinaryDriver()],
                data_dir=tmp_path / "far",
                join_token=await plane.invite(),
                labels={"at": "far"},
                **settings,
            )
            async with far:
                await client.run(a_job("moves", tmp_path), timeout="60s")
                await client.run(a_job("stays", tmp_path, constraints=here), timeout="60s")
                (moved,), (stayed,) = await words(tmp_path / "moves", 1), await words(tmp_path / "stays", 1)
                async with Agent(
                    "near",
                    transport=plane.transport(),
                    drivers=[BinaryDriver()],
                    data_dir=tmp_path / "near",
                    **settings,
                ):
                    proxy.cut()
                    await env.sleep(60)
                    await until(partial(has, client, "far", NodeStatus.DOWN))
                    await until(partial(on, client, "moves", "near"))
                    assert alive(int(moved))
                    assert alive(int(stayed))
                    proxy.is_cut = False
                    await until(partial(has, client, "far", NodeStatus.READY))
                    (copy,) = [one for one in await client.allocations(job="stays") if one.live]
                    await until(partial(on, client, "stays", "far"))
                    assert await words(tmp_path / "stays", 1) == [stayed]

                    async def settled() -> bool:
                        copies = [one for one in await client.allocations(job="moves") if one.live]
                        pids = await words(tmp_path / "moves", 2)
                        return len(copies) == 1 and sum(alive(int(pid)) for pid in pids) == 1

                    await until(settled)
                    assert len(await words(tmp_path / "moves", 2)) == 2
                    assert copy.tasks[0].attempt == 1
