"""A program of somebody who only uses a control plane: all that `Client` and `SyncClient` can do."""

# pyright: strict

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import anyio

import khonsu


def service(count: int = 1) -> khonsu.Job:
    """Return a service with all that a job can say in short."""
    return khonsu.Job.single(
        "web",
        khonsu.BinaryConfig("/bin/sleep", args=["600"]),
        count=count,
        ports={"http": "dynamic"},
        resources=khonsu.Resources(cpu=0.1, memory="16MiB"),
        constraints=["os is_set"],
        update=khonsu.Update(healthy_for=timedelta(milliseconds=10), max_parallel=2),
        meta={"team": "moon"},
    )


async def use(client: khonsu.Client) -> list[str]:
    """Ask for everything once, and return what was seen."""
    seen: list[str] = []
    nodes: tuple[khonsu.Node, ...] = await client.wait_for_nodes(1, timeout="20s")
    seen.append(nodes[0].name)
    submission: khonsu.Submission = await client.submit(service(), idempotency_key="once")
    result: khonsu.JobResult = await client.wait(submission, timeout=20, until="done")
    seen.append(result.raise_for_status().status)
    for allocation in result.allocations:
        port = allocation.ports[0].host
        seen.append("a port" if port > 0 else "no port")
    plan: khonsu.JobPlan = await client.plan(service(2))
    seen.append(f"{plan.outcome}, {'placeable' if plan.placeable else 'not placeable'}")
    scaled = await client.scale(submission, 2)
    await client.wait(scaled, timeout="20s")
    explanation: khonsu.Explanation = await client.explain("web")
    seen.append(str(sum(node.placed for group in explanation.groups for node in group.nodes)))
    async with client.events(after=submission.revision, job="web", follow=False) as events:
        seen.append("events" if [event.type async for event in events] else "no events")
    try:
        await client.job("wbe")
    except khonsu.NotFound as error:
        seen.append(f"{error.kind}, perhaps {error.nearest}")
    history = await client.history("web")
    await client.revert("web", version=history[-1].version)
    stopped: khonsu.JobInfo = await client.stop("web", purge=True)
    seen.append(stopped.name)
    return seen


async def serve(directory: Path) -> list[str]:
    """Own a control plane and an agent, and use them."""
    async with (
        khonsu.ControlPlane(store=khonsu.SQLiteStore(directory / "state.db")) as control,
        khonsu.Agent(
            "home",
            transport=control.transport(),
            drivers=[khonsu.BinaryDriver()],
            data_dir=directory / "home",
            on_exit="stop",
        ),
        control.client() as client,
    ):
        return await use(client)


def main() -> tuple[list[str], list[str]]:
    """Return what the program saw, and what one without async saw."""
    with tempfile.TemporaryDirectory() as directory:
        seen = anyio.run(serve, Path(directory))
    with khonsu.LocalCluster() as cluster:
        client: khonsu.SyncClient = cluster.client
        hello = khonsu.BinaryConfig("/bin/echo", args=["hello"])
        result = client.run(khonsu.Job.single("hello", hello, type="batch"), timeout="20s")
        with client.logs("hello") as lines:
            return seen, [str(result.exit_code), *(line.text for line in lines)]
