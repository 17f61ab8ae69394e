"""`nomad-cases`: one call of the scheduler on a fleet of 5,000 nodes in 50 racks; the plan is not committed."""

from __future__ import annotations

import gc
import time
from collections import Counter
from statistics import median
from typing import Any

from attrs import evolve

from khonsu.abc.scheduler import Scheduler
from khonsu.bench.jobs import printed
from khonsu.bench.machines import CPU_MILLIS, MEMORY_BYTES, RACKS, facts
from khonsu.bench.report import Measured
from khonsu.core.changes import Changes, Place
from khonsu.core.conditions import Constraint, Spread
from khonsu.core.fleet_state import FleetState
from khonsu.core.ids import EvaluationId, NodeId
from khonsu.core.job import Job
from khonsu.core.plan import Plan, Snapshot
from khonsu.core.records import Evaluation, JobRecord, Node, Time, job_key
from khonsu.core.revision import Revision
from khonsu.core.states import JobStatus
from khonsu.core.task import Resources
from khonsu.drivers.binary import BinaryConfig
from khonsu.schedulers.fit import BinPack, SpreadOut

SIZES = (300, 1_200)
CPU_CORES = 6
COPY_MEMORY_BYTES = 6_000 * 10**6
SCHEDULERS: dict[str, type[Scheduler]] = {"binpack": BinPack, "spread": SpreadOut}


def cases(*, nodes: int = 5_000, scheduler: str = "binpack", samples: int = 10) -> Measured:
    """Measure the seconds that a scheduler needs for 300 and for 1,200 copies, with and without a spread over racks.

    The figure is the median of the dearest of the four; the medians of all stand in the details.
    """
    state = _fleet(nodes)
    found: dict[str, list[float]] = {}
    wrong = 0
    job = _job(SIZES[-1], scheduler, spread=True)
    for spread in (False, True):
        for count in SIZES:
            job = _job(count, scheduler, spread=spread)
            # A scheduler at work has one fleet after another, and finds nothing ready that was made for this one.
            times: list[float] = []
            for number in range(samples):
                seconds, plan = _once(SCHEDULERS[scheduler](), state, job, Revision(1, number + 1))
                times.append(seconds)
                wrong += _violations(plan, count)
            found[f"{count}{'_with_spread' if spread else ''}"] = times
    figures: dict[str, Any] = {f"copies_{name}_median_seconds": median(times) for name, times in found.items()}
    firsts: dict[str, Any] = {f"copies_{name}_first_seconds": times[0] for name, times in found.items()}
    dearest = max(found.values(), key=median)
    return Measured.median(dearest, "s", wrong=wrong, details={**figures, **firsts, "job": printed(job)})


def _once(scheduler: Scheduler, state: FleetState, job: Job, revision: Revision) -> tuple[float, Plan]:
    """Return how long one call took, on a fleet of which no column was looked at, and the plan."""
    key = job_key(job.namespace, job.name)
    now = Time(0.0)
    record = JobRecord(
        key=key, namespace=job.namespace, name=job.name, type=job.type, version=1, created_at=now, submitted_at=now
    )
    places = tuple(Place(group="main", slot=slot) for slot in range(job.groups[0].count))
    changes = Changes(version=1, place=places, status=JobStatus.PENDING)
    evaluation = Evaluation(id=EvaluationId("bench"), job=key, priority=50, trigger="submit", created_at=now)
    snapshot = Snapshot(
        revision=revision,
        job=record,
        specs={1: job},
        allocations=(),
        nodes=state.nodes,
        fleet=state.snapshot(revision),
    )
    gc.collect()
    began = time.perf_counter()
    plan = scheduler.schedule(evaluation, snapshot, changes)
    return time.perf_counter() - began, plan


def _fleet(nodes: int) -> FleetState:
    state = FleetState(seed=0)
    for number in range(nodes):
        found = facts(number)
        node = Node(
            id=NodeId(f"node-{number}"),
            name=f"node-{number}",
            labels=found.labels,
            attributes=found.attributes,
            resources=found.resources,
            drivers=found.drivers,
            joined_at=Time(0.0),
            status_at=Time(0.0),
        )
        state.put_node(node)
    return state


def _job(count: int, scheduler: str, *, spread: bool) -> Job:
    racks = ",".join(f"r{number}" for number in range(RACKS // 2))
    job = Job.single(
        "case",
        BinaryConfig("sleep", args=("3600",)),
        count=count,
        scheduler=scheduler,
        resources=Resources(cpu=CPU_CORES, memory=COPY_MEMORY_BYTES),
        disk=0,
        constraints=[Constraint("label.rack", "in", racks)],
    )
    return evolve(job, spreads=[Spread("label.rack")]) if spread else job


def _violations(plan: Plan, count: int) -> int:
    """Return how many copies are missing, outside of the wanted racks, or on a node that holds too much."""
    rows: list[int] = plan.placements.node.tolist()
    room = min(CPU_MILLIS // (CPU_CORES * 1000), MEMORY_BYTES // COPY_MEMORY_BYTES)
    strays = sum(row % RACKS >= RACKS // 2 for row in rows)
    return abs(count - len(rows)) + strays + sum(number > room for number in Counter(rows).values())
