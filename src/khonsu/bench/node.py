"""A control plane in a process of its own, with an agent or without: `python -m khonsu.bench.node FOLDER [--bare]`.

It prints its address when it can run a task, and ends with its standard input.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from khonsu.agent.agent import Agent
from khonsu.api.listener import HTTPListener
from khonsu.control.plane import ControlPlane
from khonsu.drivers.binary import BinaryDriver
from khonsu.stores.sqlite import SQLiteStore

NAME = "node"


async def main(folder: Path, *, bare: bool) -> None:
    """Serve until standard input ends."""
    async with AsyncExitStack() as stack:
        plane = ControlPlane(
            store=SQLiteStore(folder / "state.db"),
            listeners=[HTTPListener("127.0.0.1:0")],
            data_dir=folder,
        )
        await stack.enter_async_context(plane)
        if not bare:
            agent = Agent(
                NAME,
                transport=plane.transport(),
                drivers=[BinaryDriver()],
                data_dir=folder / "agent",
                on_exit="stop",
            )
            await stack.enter_async_context(agent)
        print(plane.addresses[0], flush=True)
        while await anyio.wrap_file(sys.stdin).readline():
            pass


if __name__ == "__main__":
    anyio.run(lambda: main(Path(sys.argv[1]), bare="--bare" in sys.argv))
