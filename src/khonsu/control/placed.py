"""New allocations by column: what a plan places, before anybody looks at a single copy.

A million small objects cost more than placing a million copies. So a plan's copies go to the disk and into the tables
as columns, and an `Allocation` is made when somebody asks for that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from khonsu.core.ids import AllocationId, NodeId, key_text, parse_key
from khonsu.core.records import Allocation, job_key


@frozen(kw_only=True, eq=False)
class Placed:
    """New allocations of one job. They never change; what does change is an `Allocation` from then on.

    Args:
        first: The key of the first one; the others follow.
        node_ids: The node of each one.
        groups: The group of each one.
        same: The other fields that all of them share.
        each: Those of which each has its own, in the order of `node_ids`.

    """

    first: int
    node_ids: Sequence[NodeId]
    groups: Sequence[str]
    same: Mapping[str, Any]
    each: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.node_ids)

    @property
    def job(self) -> str:
        """Return the key of their job."""
        return job_key(self.same["namespace"], self.same["job"])

    @property
    def version(self) -> int:
        """Return the version of the job that they are copies of."""
        return int(self.same["version"])

    @property
    def desired_at(self) -> int:
        """Return the number of the revision that they were placed with."""
        return int(self.same["desired_at"])

    def ids(self) -> list[AllocationId]:
        """Return their ids."""
        return [AllocationId(key_text(key)) for key in range(self.first, self.first + len(self))]

    def make(self, key: AllocationId) -> Allocation:
        """Return one of them, by its id."""
        row = parse_key(key) - self.first
        own = {name: column[row] for name, column in self.each.items()}
        return Allocation(id=key, node_id=self.node_ids[row], group=self.groups[row], **self.same, **own)

    def columns(self) -> dict[str, Any]:
        """Return them as a store takes them."""
        keys = list(range(self.first, self.first + len(self)))
        return {"id": keys, "node_id": list(self.node_ids), "group": column(self.groups), **self.same, **self.each}


def column(values: Sequence[Any]) -> Any:
    """Return the values, or the one that they all are, as `Columns` has it. Not for sequences of sequences."""
    one = values[0]
    return one if values.count(one) == len(values) else list(values)
