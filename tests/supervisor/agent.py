"""An agent for tests: starts tasks, says what they are, and waits to be killed.

Run as `python -m tests.supervisor.agent FOLDER`; reads specs as JSON lines, answers with handles.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from khonsu.abc.driver import SpawnSpec
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv


async def main() -> None:
    """Start what is asked for, until standard input ends."""
    async with Supervisor(Path(sys.argv[1]) / "supervisor", env=SystemEnv(), idle_seconds=0.2) as supervisor:
        await supervisor.set_lease(SystemEnv().monotonic() + 1000)
        while line := await anyio.to_thread.run_sync(sys.stdin.readline):
            handle = await supervisor.spawn(SpawnSpec(**json.loads(line)))
            sys.stdout.write(json.dumps(handle) + "\n")
            sys.stdout.flush()


anyio.run(main)
