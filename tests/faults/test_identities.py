"""Agents whose credential is old, foreign or somebody else's, and ports that are taken; all on real sockets."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from khonsu.agent.agent import Agent
from khonsu.agent.identity import read_identity
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job, Update
from khonsu.core.states import NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.errors import Conflict, Unauthenticated
from khonsu.stores.memory import MemoryStore
from khonsu.transports.http import HTTPTransport
from tests.faults.program import Eager
from tests.faults.running import alive, until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from khonsu.client.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.end_to_end]


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[ControlPlane, Client], None]:
    """Own a control plane on a socket, and a client of it."""
    async with (
        ControlPlane(store=MemoryStore(), listeners=[HTTPListener("127.0.0.1:0")]) as plane,
        plane.client() as client,
    ):
        yield plane, client


def an_agent(folder: Path, plane: ControlPlane, **more: Any) -> Agent:
    """Return an agent of the node `one`."""
    transport = HTTPTransport(plane.addresses[0])
    return Agent("one", transport=transport, drivers=[BinaryDriver()], data_dir=folder, env=Eager(), **more)


async def a_task(client: Client, name: str = "stays") -> int:
    """Run a service, and return its process."""
    job = Job.single(name, BinaryConfig("sleep", args=["1000"]), update=Update(healthy_for=0.0), disk="1MiB")
    result = await client.run(job, timeout="30s")
    pid = result.allocations[0].tasks[0].pid
    assert pid is not None
    return pid


async def gone(pid: int) -> None:
    """Wait until a process has ended."""

    async def look() -> bool:
        return not alive(pid)

    await until(look)


async def test_two_agents_with_one_identity(tmp_path: Path) -> None:
    """Of a copied data directory the agent that came later goes on; the earlier one stops, and says why."""
    async with serving() as (plane, client):
        stopped: list[Conflict] = []
        joined = anyio.Event()

        async def earlier() -> None:
            try:
                async with an_agent(tmp_path / "a", plane, join_token=await plane.invite()):
                    joined.set()
                    await anyio.sleep_forever()
            except Conflict as error:
                stopped.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(earlier)
            await joined.wait()
            (tmp_path / "b").mkdir(mode=0o700)
            shutil.copy2(tmp_path / "a" / "identity.json", tmp_path / "b" / "identity.json")
            async with an_agent(tmp_path / "b", plane, on_exit="stop"):

                async def has_stopped() -> bool:
                    return bool(stopped)

                await until(has_stopped)
                (node,) = await client.nodes()
                assert node.status is NodeStatus.READY
                await a_task(client)
        assert "another agent" in stopped[0].message
        assert stopped[0].hint


async def test_a_credential_that_is_not_taken_any_more(tmp_path: Path) -> None:
    """The agent of a removed node ends and says what to do; its task runs on until the machine has joined again."""
    async with serving() as (plane, client):
        folder = tmp_path / "agent"
        async with an_agent(folder, plane, join_token=await plane.invite()):
            pid = await a_task(client)
        identity = read_identity(folder)
        assert identity is not None
        batch = plane.parts.state.batch()
        plane.parts.nodes.end(batch, plane.parts.nodes.find("one"), "removed")
        await plane.parts.state.commit(batch)
        with pytest.raises(Unauthenticated, match="khonsu node invite"):
            async with an_agent(folder, plane):
                pass
        assert alive(pid)
        async with an_agent(folder, plane, join_token=await plane.invite(), on_exit="stop"):
            assert (await client.node("one")).id != identity.node
            await gone(pid)


async def test_a_credential_of_another_control_plane(tmp_path: Path) -> None:
    """A node's credential opens nothing elsewhere, even where the authority is trusted."""
    async with serving() as (plane, _), serving() as (other, _):
        async with an_agent(tmp_path / "a", plane, join_token=await plane.invite()):
            pass
        async with an_agent(tmp_path / "b", other, join_token=await other.invite()):
            pass
        ours, theirs = read_identity(tmp_path / "a"), read_identity(tmp_path / "b")
        assert ours is not None
        assert theirs is not None
        text = (tmp_path / "b" / "identity.json").read_text()
        mixed = text.replace(theirs.credential.reveal(), ours.credential.reveal())
        assert mixed != text
        (tmp_path / "b" / "identity.json").write_text(mixed)
        with pytest.raises(Unauthenticated, match="does not take node one"):
            async with an_agent(tmp_path / "b", other):
                pass


def test_the_servers_port_is_taken(tmp_path: Path) -> None:
    """A server whose port is taken ends with a failure, and says how to find who has it."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "khonsu", "server", "--data-dir", str(tmp_path), "--listen", f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: another program listens there" in done.stderr
    assert f"sport = :{port}" in done.stderr
    assert "Traceback" not in done.stderr
