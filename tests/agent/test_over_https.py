"""The agent and a whole control plane, over HTTPS."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from khonsu.agent.agent import Agent
from khonsu.agent.identity import read_identity
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.core.job import Job, Update
from khonsu.core.states import NodeStatus
from khonsu.drivers.binary import BinaryConfig, BinaryDriver
from khonsu.errors import WrongAuthority
from khonsu.stores.memory import MemoryStore
from khonsu.supervisor.processes import look
from khonsu.transports.http import HTTPTransport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from khonsu.core.secret import Secret

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Serving HTTP is asyncio only."""
    return "asyncio"


@asynccontextmanager
async def serving(place: str = "127.0.0.1:0") -> AsyncGenerator[ControlPlane, None]:
    """Serve a control plane with an authority of its own."""
    async with ControlPlane(store=MemoryStore(), listeners=[HTTPListener(place)]) as control:
        yield control


def an_agent(folder: Path, url: str, token: Secret | None = None) -> Agent:
    """Return an agent of a node `far`."""
    return Agent("far", transport=HTTPTransport(url), drivers=[BinaryDriver()], data_dir=folder, join_token=token)


async def test_a_token_is_needed_once_and_the_authority_is_kept(data_dir: Path) -> None:
    """The token says whom to trust at first; then the agent trusts that authority and nobody else."""
    async with serving() as control:
        url = control.addresses[0]
        async with an_agent(data_dir, url, await control.invite(name="far")):
            pass
        identity = read_identity(data_dir)
        assert identity is not None
        assert identity.authority is not None
        async with an_agent(data_dir, url):
            node = await control.client().node("far")
            assert node.status is NodeStatus.READY
            assert node.id == identity.node
            assert node.address == "127.0.0.1"


async def test_another_control_plane_in_its_place(data_dir: Path) -> None:
    """Nothing is said to it and nothing is stopped; with a token of the new one the node begins anew there."""
    async with serving() as control:
        url = control.addresses[0]
        job = Job.single("s", BinaryConfig("sleep", args=["1000"]), update=Update(healthy_for=0.05))
        async with an_agent(data_dir, url, await control.invite()):
            result = await control.client().run(job, timeout="20s")
            pid = result.allocations[0].tasks[0].pid
    assert pid is not None
    async with serving(url.removeprefix("https://")) as control:
        with pytest.raises(WrongAuthority, match="is not the pinned control plane"):
            async with an_agent(data_dir, url):
                pass
        assert look(pid) is not None
        async with an_agent(data_dir, url, await control.invite()):
            assert (await control.client().node("far")).status is NodeStatus.READY
            while (process := look(pid)) is not None and not process.zombie:
                await control.client().nodes()
