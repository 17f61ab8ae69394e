"""One process: a control plane on SQLite, one agent, one batch job, its exit code and its logs.

What: the smallest whole composition. Needs: nothing but Khonsu. Run: `python -m khonsu.examples.single_node`.
Expect: `complete 0`, and the line that the job wrote.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio

import khonsu


async def main(directory: Path) -> khonsu.JobResult:
    """Run one job on a cluster of one node, and say what happens."""
    print(f"A control plane on {directory / 'state.db'}, and an agent named home, in this process.")
    async with (
        khonsu.ControlPlane(store=khonsu.SQLiteStore(directory / "state.db")) as control,
        khonsu.Agent(
            "home",
            transport=control.transport(),
            drivers=[khonsu.BinaryDriver()],
            data_dir=directory / "home",
            on_exit="stop",
        ),
    ):
        client = control.client()
        job = khonsu.Job.single("hello", khonsu.BinaryConfig("/bin/echo", args=["hello, moon"]), type="batch")
        print("Both are ready. Submitting the batch job hello: /bin/echo 'hello, moon'")
        result = await client.run(job, timeout="30s")
        print(f"It is {result.status}, with exit code {result.exit_code}, on {result.allocations[0].node}. Its output:")
        async with client.logs("hello") as lines:
            async for line in lines:
                print(f"  {line.text}")
    print("Stopped. With a directory of your own instead of a temporary one, the next start goes on from here.")
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="khonsu-") as place:
        raise SystemExit(anyio.run(main, Path(place)).exit_code)
