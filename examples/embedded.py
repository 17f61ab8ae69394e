"""A control plane inside your own service: it runs builds, and reacts to what becomes of them.

What: an async program that composes a control plane and an agent, submits a batch job for each of its orders, and
learns of their ends from the stream of events instead of asking again and again.
Needs: Khonsu, nothing else; it works in a temporary directory.
Run: `python examples/embedded.py`
Expect: three builds, of which one fails with exit code 3 and its last line of output; exit code 0.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import anyio

import khonsu

ORDERS: Mapping[str, str] = {
    "docs": "echo the docs are built",
    "tests": "echo a test failed; exit 3",
    "wheel": "echo the wheel is built",
}
ENDS = ("job-complete", "job-failed")


def build(name: str, script: str) -> khonsu.Job:
    """Return the job of an order, which is tried once."""
    return khonsu.Job.single(
        name,
        khonsu.BinaryConfig("/bin/sh", args=["-c", script]),
        type="batch",
        meta={"ordered-by": "example"},
        restart=khonsu.Restart(attempts=0),
        reschedule=khonsu.Reschedule(attempts=0),
    )


async def last_line(client: khonsu.Client, job: str) -> str:
    """Return the last line that a job wrote."""
    async with client.logs(job, tail=1) as lines:
        return " ".join([line.text async for line in lines])


async def serve(directory: Path) -> dict[str, int | None]:
    """Run all orders, and return their exit codes."""
    codes: dict[str, int | None] = {}
    async with (
        khonsu.ControlPlane(store=khonsu.SQLiteStore(directory / "state.db")) as control,
        khonsu.Agent(
            "builder",
            transport=control.transport(),
            drivers=[khonsu.BinaryDriver()],
            data_dir=directory / "builder",
            on_exit="stop",
        ),
    ):
        client = control.client()
        for name, script in ORDERS.items():
            await client.submit(build(name, script))
        async with client.events(types=ENDS) as events:
            async for event in events:
                job = event.job or ""
                result = await client.wait(job)
                codes[job] = result.exit_code
                print(f"{job}: {result.status}, exit code {result.exit_code}: {await last_line(client, job)}")
                if len(codes) == len(ORDERS):
                    break
    return codes


def main() -> dict[str, int | None]:
    """Serve in a directory that goes with the program; return the exit codes by order."""
    with tempfile.TemporaryDirectory(prefix="khonsu-") as directory:
        return anyio.run(serve, Path(directory))


if __name__ == "__main__":
    raise SystemExit(main() != {"docs": 0, "tests": 3, "wheel": 0})
