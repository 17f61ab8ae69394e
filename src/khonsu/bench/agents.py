"""`agents`: many simulated agents on one control plane, over real TLS sockets, each with its own connection.

The control plane is a process of its own; the load is made here, on the same machine.
"""

from __future__ import annotations

import random
import resource
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from attrs import define, field

from khonsu.bench import processes
from khonsu.bench.jobs import printed, sleeper
from khonsu.bench.lean import lean_connection
from khonsu.bench.machines import Machine
from khonsu.bench.nodes import Started, beside, fresh_process
from khonsu.bench.report import Measured, percentile
from khonsu.client.client import Client
from khonsu.core.secret import Secret
from khonsu.env import SystemEnv
from khonsu.errors import KhonsuError

JOINING = 20
LIMIT_SECONDS = 300.0


@define(eq=False)
class Load:
    """What all simulated agents together have seen."""

    measuring: bool = False
    late: list[float] = field(factory=list)
    """For each renewal that was measured, how long its answer took beyond what it was held."""
    latest: float = 0.0
    """The same, at most, over all renewals."""
    answered: int = 0
    """How many were answered while it was measured."""
    failed: int = 0
    running: int = 0


async def agents(*, agents: int = 1_000, allocations: int = 5, settle: float = 5.0, seconds: float = 20.0) -> Measured:
    """Measure the 99th percentile of the seconds that a renewal takes beyond the time that it is held.

    Args:
        agents: How many agents there are.
        allocations: How many allocations each has.
        settle: How long to wait once all have joined and run their allocations: until nobody holds a request any more
            that was made while all got their work at once.
        seconds: For how long it is measured after that.

    """
    raise_file_limit()
    env = SystemEnv()
    load = Load()
    at_work = 0.0
    job = sleeper("sleepers", agents * allocations)
    async with beside(fresh_process(bare=True)) as control:
        client = await env.run_blocking(control.client)
        async with client, _all_at_work(control, client, agents, load):
            if allocations:
                began = time.perf_counter()
                await client.submit(job)
                with anyio.fail_after(LIMIT_SECONDS):
                    while load.running < agents * allocations:  # noqa: ASYNC110 - counted by many tasks
                        await anyio.sleep(0.1)
                at_work = time.perf_counter() - began
            await anyio.sleep(settle)
            before = await env.run_blocking(processes.cpu_seconds, control.pid)
            began, own = time.perf_counter(), time.process_time()
            load.measuring = True
            await anyio.sleep(seconds)
            load.measuring = False
            took, own = time.perf_counter() - began, time.process_time() - own
            spent = await env.run_blocking(processes.cpu_seconds, control.pid) - before
            size = await env.run_blocking(processes.pss_bytes, control.pid)
            status = await client.status()
        peak = await env.run_blocking(processes.peak_rss_bytes, control.pid)
    return Measured(
        figure=percentile(load.late, 0.99) if load.late else 0.0,
        unit="s",
        samples=tuple(percentile(load.late, share) for share in (0.5, 0.9, 0.99, 0.999)) if load.late else (),
        peak_rss_bytes=peak,
        bytes_per_item=size / agents,
        wrong=load.failed + (agents - status.nodes_ready),
        details={
            "renewals_per_second": load.answered / took,
            "control_plane_cores": spent / took,
            "load_cores": own / took,
            "control_plane_bytes": size,
            "at_work_seconds": at_work,
            "latest_seconds": load.latest,
            "samples_are": "p50, p90, p99, p99.9",
            "job": printed(job),
        },
    )


@asynccontextmanager
async def _all_at_work(control: Started, client: Client, count: int, load: Load) -> AsyncGenerator[None, None]:
    """Own agents that have joined and renew their leases."""
    context = await SystemEnv().run_blocking(control.context)
    numbers = iter(range(count))
    machines: list[Machine] = []

    async def join(stack: AsyncExitStack) -> None:
        for number in numbers:
            machines.append(await _join(stack, control.url, context, client, number))
            group.start_soon(_work, machines[-1], load)

    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        async with anyio.create_task_group() as joining:
            for _ in range(JOINING):
                joining.start_soon(join, stack)
        yield
        group.cancel_scope.cancel()


async def _join(stack: AsyncExitStack, url: str, context: ssl.SSLContext, client: Client, number: int) -> Machine:
    invitation = await client.invite_node(name=f"node-{number}")
    connection = await stack.enter_async_context(lean_connection(url, context))
    return await Machine.join(connection, number, token=Secret(invitation.token))


async def _work(machine: Machine, load: Load) -> None:
    """Do what an agent does, but for the tasks."""
    response = await machine.sync()
    spread = True
    while True:
        reports = machine.start(response)
        # As the agent does it, so that renewals do not come all at once; the first is anywhere in its interval, since
        # agents that all got work in the same moment would need minutes to come apart.
        chance = random.random()  # noqa: S311 - no secret
        hold = 0.0 if reports else machine.interval_seconds * (chance if spread else 0.8 + 0.4 * chance)
        spread = bool(reports)
        began, measured = time.perf_counter(), load.measuring
        try:
            response = await machine.sync(hold_seconds=hold, reports=reports)
        except KhonsuError:
            load.failed += 1
            await anyio.sleep(1.0)
            continue
        late = max(0.0, time.perf_counter() - began - hold)
        load.latest = max(load.latest, late)
        load.answered += load.measuring
        if measured:
            load.late.append(late)
        load.running += len(reports)


def raise_file_limit() -> None:
    """Allow this process, and those that it starts, as many files as it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
