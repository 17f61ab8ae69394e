"""The end of a control plane does not wait for what it holds."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio
import pytest

from khonsu.abc.transport import Identity
from khonsu.api.limits import Limits
from khonsu.api.listener import HTTPListener
from khonsu.control.state import State
from khonsu.core.secret import Secret
from khonsu.errors import KhonsuError
from khonsu.transports.http import HTTPTransport
from tests.control.cluster import Node, cluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> anyio.Event:
    """Return what is set when the request of an agent begins to wait for news."""
    event = anyio.Event()
    wait_until = State.wait_until

    async def noted(state: State, condition: Callable[[], bool], *scopes: str) -> None:
        if any(scope.startswith("assign:") for scope in scopes):
            event.set()
        await wait_until(state, condition, *scopes)

    monkeypatch.setattr(State, "wait_until", noted)
    return event


async def hold(node: Node, refused: list[KhonsuError]) -> None:
    """Make a request that is held, and keep why it was refused."""
    await node.sync()
    try:
        await node.sync(hold=30.0)
    except KhonsuError as error:
        refused.append(error)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_held_requests_of_agents_are_released_over_https(tmp_path: Path, held: anyio.Event) -> None:
    """A server that would wait an hour for writes still ends at once: an agent asks the next one again."""
    refused: list[KhonsuError] = []
    listener = HTTPListener("127.0.0.1:0", limits=Limits(stop_seconds_max=3600.0))
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        async with cluster(listeners=[listener], data_dir=tmp_path) as home:
            joined = await home.joined("a")
            transport = HTTPTransport(home.plane.addresses[0], ca=tmp_path / "ca.pem")
            identity = Identity(credential=Secret(joined.credential))
            node = Node(await stack.enter_async_context(transport.connect(identity)), "a", joined.node)
            group.start_soon(hold, node, refused)
            await held.wait()
        # It was left, and what was held was answered before that.
        assert [error.retryable for error in refused] == [True]


async def test_held_requests_of_agents_are_released_in_process(held: anyio.Event) -> None:
    """An agent in the same process is told that the control plane stops."""
    refused: list[KhonsuError] = []
    async with anyio.create_task_group() as group, cluster() as home:
        node = await home.node("a")
        group.start_soon(hold, node, refused)
        await held.wait()
    assert [error.retryable for error in refused] == [True]
