"""The jobs that are measured: as small as a job can be, so that the orchestrator is what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from khonsu.core.codec import to_json
from khonsu.core.conditions import Spread
from khonsu.core.job import Job
from khonsu.core.policies import Update
from khonsu.core.states import JobType
from khonsu.core.task import Resources
from khonsu.drivers.binary import BinaryConfig

CPU = 0.001
MEMORY = "1MiB"
DISK = "1MiB"
SLEEP_SECONDS = 3600


def sleeper(name: str, count: int = 1) -> Job:
    """Return a service whose copies sleep, and count as healthy as soon as they run."""
    config = BinaryConfig("sleep", args=(str(SLEEP_SECONDS),))
    return small(name, config, count=count, update=Update(healthy_for=0))


def at_once(name: str, count: int = 1) -> Job:
    """Return a batch job whose copies end at once."""
    return small(name, BinaryConfig("/bin/true"), count=count, type=JobType.BATCH)


def small(
    name: str,
    config: BinaryConfig,
    *,
    count: int,
    type: JobType = JobType.SERVICE,
    scheduler: str = "binpack",
    spreads: Iterable[Spread] = (),
    update: Update | None = None,
) -> Job:
    """Return a job whose copies take next to nothing."""
    return Job.single(
        name,
        config,
        type=type,
        count=count,
        scheduler=scheduler,
        spreads=spreads,
        update=update,
        resources=Resources(cpu=CPU, memory=MEMORY),
        disk=DISK,
    )


def printed(job: Job) -> Any:
    """Return a job as it stands in a report."""
    return to_json(job)
