"""Fleets and asks for tests of schedulers: mixed machines, some partly full, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from khonsu.core.ask import Ask, make_ask
from khonsu.core.conditions import Affinity, Constraint, Spread
from khonsu.core.fleet import Fleet
from khonsu.core.fleet_state import FleetState
from khonsu.core.ids import AllocationId, EvaluationId, NodeId
from khonsu.core.job import Job, PortLike
from khonsu.core.records import Allocation, DriverInfo, Node, NodeResources, Time
from khonsu.core.revision import Revision
from khonsu.core.states import Eligibility, NodeStatus
from khonsu.core.task import Resources
from khonsu.core.units import CPULike, SizeLike

GIB = 2**30
CORES = (2, 4, 4, 8, 16)
MEMORY_GIB = (4, 8, 16, 16, 64)
RACKS = 8
REVISION = Revision(1, 1)


def fleet(nodes: int = 100, seed: int = 0) -> Fleet:
    """Return a fleet of mixed machines; about one in twenty may not be given work.

    Args:
        nodes: How many.
        seed: The same seed gives the same fleet.

    """
    return fleet_state(nodes, seed).snapshot(REVISION)


def fleet_state(nodes: int = 100, seed: int = 0) -> FleetState:
    """Return what `fleet` is a snapshot of: nodes, and allocations of other jobs on them."""
    chance = np.random.default_rng(seed)
    state = FleetState(seed=seed)
    for number in range(nodes):
        made = _node(number, chance)
        state.put_node(made)
        share = chance.choice((0.0, 0.0, 0.25, 0.5, 0.9))
        taken = Allocation(
            id=AllocationId(f"other-{number}"),
            namespace="default",
            job="other",
            version=1,
            group="main",
            slot=number,
            node_id=made.id,
            node=made.name,
            evaluation=EvaluationId("other"),
            created_at=Time(0.0),
            changed_at=Time(0.0),
        )
        state.add(
            taken,
            {
                "cpu": int(made.resources.cpu_millis * share),
                "memory": int(made.resources.memory_bytes * share),
                "disk": int(made.resources.disk_bytes * share),
            },
        )
    return state


def ask(
    cpu: CPULike = 1,
    count: int = 3,
    *,
    memory: SizeLike = "128MiB",
    disk: SizeLike = "300MiB",
    name: str = "job",
    ports: Mapping[str, PortLike] | None = None,
    max_per_node: int | None = None,
    constraints: Iterable[Constraint | str] = (),
    affinities: Iterable[Affinity] = (),
    spreads: Iterable[Spread] = (),
    avoid: Iterable[NodeId] = (),
    seed: int = 0,
) -> Ask:
    """Return an ask for all copies of a job with one group.

    Args:
        cpu: Cores that a copy takes.
        count: How many copies.
        memory: The memory that a copy takes.
        disk: The disk that a copy takes.
        name: The name of the job.
        ports: The ports of the group.
        max_per_node: How many copies a node may have.
        constraints: Conditions on nodes; the fleet has `os`, `arch`, `label.rack` and, on some nodes, `label.disk`.
        affinities: Wishes for nodes.
        spreads: Wishes to spread the copies.
        avoid: The nodes where the slot failed before.
        seed: For schedulers that draw lots.

    """
    job = Job.single(
        name,
        {"command": "true"},
        driver="binary",
        count=count,
        resources=Resources(cpu=cpu, memory=memory),
        disk=disk,
        ports=ports,
        max_per_node=max_per_node,
        constraints=constraints,
        affinities=affinities,
        spreads=spreads,
    )
    return make_ask(job, job.groups[0], tuple(range(count)), seed=seed, avoid=tuple(avoid))


def _node(number: int, chance: np.random.Generator) -> Node:
    size = int(chance.integers(len(CORES)))
    state = float(chance.random())
    return Node(
        id=NodeId(f"node-{number}"),
        name=f"node-{number}",
        status=NodeStatus.DOWN if state < 0.03 else NodeStatus.READY,
        eligibility=Eligibility.DRAINING if 0.03 <= state < 0.05 else Eligibility.ELIGIBLE,
        labels={
            "rack": f"rack-{number % RACKS}",
            **({"disk": str(chance.choice(["ssd", "hdd"]))} if chance.random() < 0.8 else {}),
        },
        attributes={
            "os": str(chance.choice(["linux", "linux", "linux", "darwin"])),
            "arch": str(chance.choice(["amd64", "arm64"])),
        },
        resources=NodeResources(
            cpu_millis=CORES[size] * 1000,
            memory_bytes=MEMORY_GIB[int(chance.integers(len(MEMORY_GIB)))] * GIB,
            disk_bytes=500 * GIB,
        ),
        drivers=(DriverInfo(name="binary", version="1"),),
        joined_at=Time(0.0),
        status_at=Time(0.0),
    )
