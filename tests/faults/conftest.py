"""What the tests of faults share: programs that are loaded once, and a server for those that only ask."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from tests.faults.running import Forks, Server, forks

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def anyio_backend() -> str:
    """HTTP is served on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def forked() -> Iterator[Forks]:
    """Return what forks programs."""
    with forks() as made:
        yield made


@pytest.fixture(scope="session")
def server(forked: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a control plane in a process of its own, without nodes."""
    folder = tmp_path_factory.mktemp("server")
    started = forked.start(run="control", folder=str(folder), listen="127.0.0.1:0", kill_job="", kill_at=0)
    pid, address = anyio.run(started.says, "pid"), anyio.run(started.says, "address")
    assert pid is not None
    assert address is not None
    yield Server(folder=folder, address=address)
    os.kill(int(pid), signal.SIGKILL)
    assert anyio.run(started.says, "nothing") is None
