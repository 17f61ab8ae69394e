"""A control plane and an agent in one process, to be killed: `python one_node.py FOLDER`. Says one JSON line each time.

The first run submits two jobs and says which processes run. The next says how things stand once it is there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import anyio

import khonsu


async def main(folder: Path) -> None:
    """Serve until killed."""
    first = not (folder / "state.db").exists()
    async with (
        khonsu.ControlPlane(store=khonsu.SQLiteStore(folder / "state.db")) as control,
        khonsu.Agent("home", transport=control.transport(), drivers=[khonsu.BinaryDriver()], data_dir=folder / "home"),
        control.client() as client,
    ):
        if first:
            update = khonsu.Update(healthy_for=0.1)
            await client.submit(
                khonsu.Job.single("stays", khonsu.BinaryConfig("sleep", args=["1000"]), count=3, update=update)
            )
            wait = 'mkfifo "$0"; read line < "$0"; exit 7'
            config = khonsu.BinaryConfig("sh", args=["-c", wait, str(folder / "fifo")])
            await client.submit(
                khonsu.Job.single(
                    "ends",
                    config,
                    type="batch",
                    restart=khonsu.Restart(attempts=0),
                    reschedule=khonsu.Reschedule(attempts=0),
                )
            )
            await client.wait("stays", timeout="30s")
        else:
            await client.wait("ends", timeout="30s")
        tasks = await look(client)
        while any(task["pid"] is None for task in tasks):
            tasks = await look(client)
        sys.stdout.write(json.dumps(tasks) + "\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


async def look(client: khonsu.Client) -> list[dict[str, Any]]:
    """Return how all tasks stand."""
    found = await client.allocations()
    return [
        {
            "job": one.job,
            "slot": one.slot,
            "status": one.status,
            "exit_code": one.exit_code,
            "pid": task.pid,
            "attempt": task.attempt,
        }
        for one in sorted(found, key=lambda one: (one.job, one.slot))
        for task in one.tasks
    ]


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]))
