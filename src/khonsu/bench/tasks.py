"""`latency`, `burst` and `sleepers`: real tasks on one node."""

from __future__ import annotations

import os
import time
from statistics import median

import anyio

from khonsu.bench import processes
from khonsu.bench.jobs import at_once, printed, sleeper
from khonsu.bench.nodes import single_node
from khonsu.bench.report import Measured, percentile
from khonsu.client.client import Client
from khonsu.core.job import Job
from khonsu.core.results import JobResult
from khonsu.core.states import AllocationStatus
from khonsu.env import SystemEnv

WAIT = "2m"


async def latency(*, transport: str = "inprocess", samples: int = 50) -> Measured:
    """Measure the seconds from the submission of a job until its task runs."""
    running: list[float] = []
    complete: list[float] = []
    wrong = 0
    async with single_node(transport) as (client, pid):
        for number in range(samples):
            job = sleeper(f"sleep-{number}")
            running.append(await _until_running(client, job))
            await client.stop(job, purge=True)
            began = time.perf_counter()
            result = await client.wait(await client.submit(at_once(f"true-{number}")), timeout=WAIT)
            complete.append(time.perf_counter() - began)
            wrong += result.status != "complete"
        peak = await _peak(pid)
    return Measured.median(
        running,
        "s",
        peak_rss_bytes=peak,
        wrong=wrong,
        details={
            "p90_seconds": percentile(running, 0.9),
            "complete_median_seconds": median(complete),
            "job": printed(sleeper("sleep-0")),
        },
    )


async def burst(*, transport: str = "http", count: int = 200, samples: int = 3) -> Measured:
    """Measure the seconds until all copies of a batch job that end at once are complete."""
    found: list[float] = []
    wrong = 0
    async with single_node(transport) as (client, pid):
        for number in range(samples):
            began = time.perf_counter()
            result = await client.wait(await client.submit(at_once(f"burst-{number}", count)), timeout=WAIT)
            found.append(time.perf_counter() - began)
            done = sum(one.status is AllocationStatus.COMPLETE for one in result.allocations)
            wrong += abs(count - done)
        peak = await _peak(pid)
    return Measured.median(
        found, "s", peak_rss_bytes=peak, wrong=wrong, details={"job": printed(at_once("burst-0", count))}
    )


async def sleepers(*, count: int = 100, settle: float = 1.0) -> Measured:
    """Measure the memory (PSS) of all processes but the sleepers while they sleep, the client's own left out."""
    async with single_node("http") as (client, pid):
        assert pid is not None
        job = sleeper("sleepers", count)
        seconds = await _until_running(client, job)
        await anyio.sleep(settle)
        sizes, asleep = await SystemEnv().run_blocking(_look_around)
        peak = await _peak(pid)
        await client.stop(job)
    return Measured(
        figure=sum(sizes.values()),
        unit="bytes",
        samples=tuple(sizes.values()),
        peak_rss_bytes=peak,
        bytes_per_item=(sum(sizes.values()) - sizes[pid]) / count,
        wrong=abs(count - asleep),
        details={"seconds": seconds, "node_bytes": sizes[pid], "processes": len(sizes), "job": printed(job)},
    )


def _look_around() -> tuple[dict[int, int], int]:
    """Return the memory of each process but the sleepers, and how many of these there are."""
    family = processes.descendants(os.getpid())
    asleep = {one for one in family if processes.command(one) == "sleep"}
    return {one: processes.pss_bytes(one) for one in family if one not in asleep}, len(asleep)


async def _peak(pid: int | None) -> int | None:
    return None if pid is None else await SystemEnv().run_blocking(processes.peak_rss_bytes, pid)


async def _until_running(client: Client, job: Job) -> float:
    """Submit a job, and return how long it took until all its copies run."""
    count = sum(group.count for group in job.groups)
    took = 0.0
    began = time.perf_counter()

    with anyio.CancelScope() as scope:

        def look(result: JobResult) -> None:
            nonlocal took
            if sum(one.status is AllocationStatus.RUNNING for one in result.allocations) >= count and not took:
                took = time.perf_counter() - began
                scope.cancel()

        await client.wait(await client.submit(job), timeout=WAIT, progress=look)
    return took or time.perf_counter() - began
