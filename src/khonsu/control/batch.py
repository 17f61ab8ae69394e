"""A batch: the changes of one decision, gathered before they are applied and written together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from khonsu.abc.store import Change, Delete, Put
from khonsu.control.placed import Placed
from khonsu.core.ids import AllocationId
from khonsu.core.job import JSON
from khonsu.core.records import KIND_OF, Allocation, Event, JobRecord, Node, Record, Time

if TYPE_CHECKING:
    from khonsu.control.state import State


@frozen
class Look:
    """A wish that a job be looked at: why, how urgent (None: as its spec says), and not before when."""

    trigger: str
    priority: int | None = None
    not_before: float = 0.0


class Batch:
    """The changes of one decision. Made by `State.batch`, handed back to `State.apply`; nothing awaits in between."""

    def __init__(self, state: State, now: Time) -> None:
        """Start empty, at a time and at the revision that the changes will have."""
        self.now = now
        self.revision = state.open_revision
        self._state = state
        self._gathered: list[tuple[str, list[Record]] | Delete | Placed] = []
        self.looks: dict[str, Look] = {}
        """The jobs that are to be looked at, by key."""

    @property
    def changes(self) -> Sequence[Change | Placed]:
        """Return what was gathered, in order."""
        return [Put(one[0], tuple(one[1])) if isinstance(one, tuple) else one for one in self._gathered]

    def put(self, *records: Record) -> None:
        """Write records whole."""
        for record in records:
            kind = KIND_OF[type(record)].name
            last = self._gathered[-1] if self._gathered else None
            if isinstance(last, tuple) and last[0] == kind:
                last[1].append(record)
            else:
                self._gathered.append((kind, [record]))

    def place(self, placed: Placed) -> None:
        """Write new allocations."""
        self._gathered.append(placed)

    def delete(self, kind: str, *keys: str, pruned: bool = False) -> None:
        """Remove records."""
        if keys:
            self._gathered.append(Delete(kind, keys, pruned))

    def evaluate(self, job: str, trigger: str, *, priority: int | None = None, not_before: float = 0.0) -> None:
        """Have a job looked at; of several wishes for one job the soonest counts."""
        known = self.looks.get(job)
        if known is None or not_before < known.not_before:
            self.looks[job] = Look(trigger, priority, not_before)

    def event(
        self,
        type: str,
        message: str = "",
        *,
        job: JobRecord | None = None,
        allocation: Allocation | None = None,
        node: Node | str | None = None,
        task: str | None = None,
        details: Mapping[str, JSON] | None = None,
    ) -> None:
        """Record something that happened, with this change."""
        namespace = job.namespace if job else allocation.namespace if allocation else None
        self.put(
            Event(
                id=self._state.new_id(),
                revision=self.revision,
                at=self.now,
                type=type,
                namespace=namespace,
                job=job.name if job else allocation.job if allocation else None,
                version=allocation.version if allocation else job.version if job else None,
                group=allocation.group if allocation else None,
                slot=allocation.slot if allocation else None,
                allocation=AllocationId(allocation.id) if allocation else None,
                task=task,
                node=node.name if isinstance(node, Node) else node or (allocation.node if allocation else None),
                message=message,
                details=details or {},
            )
        )
