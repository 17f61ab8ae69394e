"""`c1m`: how many placements a second one durable control plane commits on a large fleet.

The nodes have no agents, but joined and renew their leases, through the interface that agents use. What was committed
is read from the file after the control plane has ended.
"""

from __future__ import annotations

import gc
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import cycle, pairwise
from pathlib import Path

import anyio
from attrs import frozen

from khonsu.abc.store import View
from khonsu.abc.transport import Connection
from khonsu.bench import processes
from khonsu.bench.jobs import printed, small
from khonsu.bench.machines import CPU_MILLIS, DISK_BYTES, MEMORY_BYTES, Machine
from khonsu.bench.nodes import beside, folder
from khonsu.bench.report import Measured
from khonsu.client.client import Client
from khonsu.control.plane import ControlPlane
from khonsu.core.conditions import Spread
from khonsu.core.job import Job
from khonsu.core.records import Allocation
from khonsu.core.states import AllocationStatus
from khonsu.drivers.binary import BinaryConfig
from khonsu.env import SystemEnv, calm_collector
from khonsu.stores.sqlite import SQLiteStore

JOINING = 100
ROWS_PER_READ = 2_000
POLL_SECONDS = 0.1
SLICE_SECONDS = 0.001
LIMIT_SECONDS = 600.0


@frozen(kw_only=True)
class Run:
    """What was seen while it ran."""

    seconds: float
    joining_seconds: float
    bytes_grown: int
    renewals: int


async def c1m(
    *,
    nodes: int = 5_000,
    jobs: int = 100,
    count: int = 1_000,
    scheduler: str = "binpack",
    spread: bool = False,
    busy: float = 0.2,
) -> Measured:
    """Measure the placements per second, from the first submission until all are durable.

    Args:
        nodes: How many nodes there are.
        jobs: How many jobs are submitted at once.
        count: How many copies each has.
        scheduler: The scheduler of all jobs.
        spread: Whether the copies are spread over the racks.
        busy: The share of its time that the event loop spends on something else.

    """
    spreads = [Spread("label.rack")] if spread else []
    config = BinaryConfig("sleep", args=("3600",))
    made = [small(f"job-{number}", config, count=count, scheduler=scheduler, spreads=spreads) for number in range(jobs)]
    async with beside(folder()) as place:
        file = place / "state.db"
        seen = await _measure(file, nodes, made, busy)
        size = await anyio.Path(file).stat()
        placed = await _committed(file)
    wanted = jobs * count
    return Measured(
        figure=wanted / seen.seconds,
        unit="placements/s",
        samples=(wanted / seen.seconds,),
        bytes_per_item=seen.bytes_grown / wanted,
        wrong=wrong_placements(placed, wanted),
        details={
            "seconds": seen.seconds,
            "joining_seconds": seen.joining_seconds,
            "renewals": seen.renewals,
            "file_bytes_per_item": size.st_size / wanted,
            "unknown": sum(one.status is AllocationStatus.UNKNOWN for one in placed),
            "nodes_used": len({one.node_id for one in placed}),
            "job": printed(made[0]),
        },
    )


async def _measure(file: Path, nodes: int, jobs: list[Job], busy: float) -> Run:
    async with ControlPlane(store=SQLiteStore(file)) as plane, plane.transport().connect(None) as connection:
        began = time.perf_counter()
        machines = await _join(connection, nodes)
        joined = time.perf_counter()
        before = await SystemEnv().run_blocking(_memory)
        with _as_a_server():
            async with _background(machines, busy) as renewals, plane.client() as client:
                start = time.perf_counter()
                await _submit(client, jobs, sum(group.count for job in jobs for group in job.groups))
                seconds = time.perf_counter() - start
        grown = await SystemEnv().run_blocking(_memory) - before
    return Run(seconds=seconds, joining_seconds=joined - began, bytes_grown=grown, renewals=len(renewals))


@contextmanager
def _as_a_server() -> Generator[None, None, None]:
    """Collect garbage as `khonsu server` does."""
    thresholds = gc.get_threshold()
    calm_collector()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def _memory() -> int:
    gc.collect()
    return processes.rss_bytes(os.getpid())


async def _join(connection: Connection, nodes: int) -> list[Machine]:
    """Have all nodes join, many at a time."""
    machines: list[Machine] = []
    numbers = iter(range(nodes))

    async def work() -> None:
        for number in numbers:
            machine = await Machine.join(connection, number)
            await machine.sync()
            machines.append(machine)

    async with anyio.create_task_group() as group:
        for _ in range(JOINING):
            group.start_soon(work)
    return machines


@asynccontextmanager
async def _background(machines: list[Machine], busy: float) -> AsyncGenerator[list[float], None]:
    """Own the renewals of all nodes, and whatever else the event loop is busy with; yields when each was made."""
    renewals: list[float] = []

    async def renew(machine: Machine) -> None:
        # It says that it knows all that anyone was told: what its copies cost an agent is not asked here.
        machine.seen = newest[0]
        newest[0] = max(newest[0], (await machine.sync()).revision)
        renewals.append(time.perf_counter())

    async def renew_all() -> None:
        due = time.perf_counter()
        for machine in cycle(machines):
            due += machine.interval_seconds / len(machines)
            await anyio.sleep(max(0.0, due - time.perf_counter()))
            group.start_soon(renew, machine)

    async def work() -> None:
        while busy > 0:
            until = time.perf_counter() + SLICE_SECONDS
            while time.perf_counter() < until:
                pass
            await anyio.sleep(SLICE_SECONDS * (1 - busy) / busy)

    newest = [max(machine.seen for machine in machines if machine.seen is not None)]
    async with anyio.create_task_group() as group:
        group.start_soon(renew_all)
        group.start_soon(work)
        yield renewals
        group.cancel_scope.cancel()


async def _submit(client: Client, jobs: list[Job], wanted: int) -> None:
    """Submit all jobs at once, and wait until every copy is placed."""
    async with anyio.create_task_group() as group:
        for job in jobs:
            group.start_soon(client.submit, job)
    with anyio.fail_after(LIMIT_SECONDS):
        while (await client.status()).allocations_live < wanted:  # noqa: ASYNC110 - it is asked as a user asks
            await anyio.sleep(POLL_SECONDS)


async def _committed(file: Path) -> list[Allocation]:
    """Return the allocations that are in the file."""
    found: list[Allocation] = []
    async with SQLiteStore(file) as store:
        after: str | None = None
        while True:
            page = await store.read(partial(_page, after=after))
            found += page
            if len(page) < ROWS_PER_READ:
                return found
            after = page[-1].id


def _page(view: View, *, after: str | None) -> list[Allocation]:
    rows = view.find("allocation", after_key=after, limit=ROWS_PER_READ)
    return [row for row in rows if isinstance(row, Allocation)]


def wrong_placements(placed: list[Allocation], wanted: int) -> int:
    """Return how many copies are missing or too many, are placed twice, or are on a node that holds too much.

    A copy on a node that was silent for too long is unknown, and may have one successor, which names it. Any other
    second copy of a slot is one too many.
    """
    slots: defaultdict[tuple[str, str, int], list[Allocation]] = defaultdict(list)
    for one in sorted((one for one in placed if one.live), key=lambda one: one.generation):
        slots[one.job_key, one.group, one.slot].append(one)
    twice = sum(not _succeeds(*pair) for copies in slots.values() for pair in pairwise(copies))
    copies = Counter(one.node_id for one in placed if one.live)
    room = min(CPU_MILLIS, MEMORY_BYTES // 2**20, DISK_BYTES // 2**20)
    overcommitted = sum(number > room for number in copies.values())
    return abs(wanted - len(slots)) + twice + overcommitted


def _succeeds(earlier: Allocation, later: Allocation) -> bool:
    """Return whether a copy was placed because nobody can say what an earlier one does."""
    return earlier.status is AllocationStatus.UNKNOWN and later.replaces and later.previous == earlier.id
