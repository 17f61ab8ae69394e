"""What is to be placed: copies of one group."""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from attrs import field, frozen

from khonsu.core.ids import NodeId
from khonsu.core.job import Group, Job
from khonsu.core.records import Allocation, job_key

PORTS = "ports"
"""The resource that stands for the ports that the control plane gives out."""

AMOUNT_MAX = 2**60
"""More than any node has, and little enough for a column to add two of them."""


@frozen(kw_only=True)
class Ask:
    """Copies of one group that are to be placed, all alike.

    Args:
        job: The spec of the job.
        group: The group of the job that they are copies of.
        count: How many are to be placed now.
        slots: The slot of each.
        previous: The allocation that each takes over from, None where there is none.
        resources: What one copy takes, in the units of the fleet (`Fleet.units`).
        seed: For schedulers that draw lots: the same for the same evaluation and group.
        avoid: The nodes where this slot failed before; then the slot is asked for by itself.

    """

    job: Job
    group: Group
    count: int
    slots: tuple[int, ...]
    previous: tuple[Allocation | None, ...] = ()
    resources: Mapping[str, int] = field(factory=dict)
    seed: int = 0
    avoid: tuple[NodeId, ...] = ()

    @property
    def job_key(self) -> str:
        """Return the key of the job."""
        return job_key(self.job.namespace, self.job.name)

    @property
    def key(self) -> tuple[str, str]:
        """Return what its copies are counted by: the job's key and the group's name."""
        return self.job_key, self.group.name

    @property
    def static_ports(self) -> tuple[int, ...]:
        """Return the ports that every copy takes on its node."""
        return tuple(port.host for port in self.group.ports if port.host is not None)


def demand(group: Group) -> dict[str, int]:
    """Return what one copy of a group takes of a node: millicores, bytes, and how many ports are to be given to it."""
    amounts = {**group.demand(), PORTS: sum(port.host is None for port in group.ports)}
    return {name: min(amount, AMOUNT_MAX) for name, amount in amounts.items()}


def make_ask(
    job: Job,
    group: Group,
    slots: tuple[int, ...],
    *,
    previous: tuple[Allocation | None, ...] = (),
    seed: int = 0,
    avoid: tuple[NodeId, ...] = (),
) -> Ask:
    """Make the ask for some slots of a group."""
    return Ask(
        job=job,
        group=group,
        count=len(slots),
        slots=slots,
        previous=previous or (None,) * len(slots),
        resources=demand(group),
        seed=seed,
        avoid=avoid,
    )


def seed_of(*parts: str) -> int:
    """Return a seed that depends on some names."""
    return crc32("/".join(parts).encode())
