"""Looks: what the pure rules say about a job as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from khonsu.control.leases import Leases
from khonsu.control.state import State
from khonsu.core.ids import NodeId
from khonsu.core.job import Group, Job
from khonsu.core.reconcile import Changes, reconcile
from khonsu.core.records import JobRecord, Node
from khonsu.core.states import JobType

if TYPE_CHECKING:
    from khonsu.core.plan import Snapshot


@frozen(kw_only=True)
class Scene:
    """A job as it was looked at, and what it needs."""

    record: JobRecord
    spec: Job
    changes: Changes

    def holds(self, record: JobRecord | None) -> bool:
        """Return whether nobody has changed the job since, or placed copies of it."""
        return record is not None and _mark(record) == _mark(self.record)


def _mark(record: JobRecord) -> tuple[object, ...]:
    return (record.version, record.run, record.stopped, record.generation, record.created_at)


class Looks:
    """Looks at jobs of a state."""

    def __init__(self, state: State, leases: Leases) -> None:
        """Know the state and who is silent."""
        self._state = state
        self._leases = leases

    def at(self, record: JobRecord, *, no_room: frozenset[tuple[str, int]] = frozenset()) -> Scene:
        """Return what a job needs now.

        Args:
            record: The job.
            no_room: The slots for whose new copy there is no room beside the old one.

        """
        spec = self._state.tables.spec(record.key, record.version)
        return Scene(record=record, spec=spec, changes=self.changes(record, spec, no_room=no_room))

    def changes(
        self,
        record: JobRecord,
        spec: Job,
        *,
        origin: str | None = None,
        no_room: frozenset[tuple[str, int]] = frozenset(),
    ) -> Changes:
        """Return what a job would need with a spec that need not be stored."""
        tables = self._state.tables
        version = tables.versions.get(record.key, {}).get(record.version)
        return reconcile(
            record,
            {**tables.specs(record.key), record.version: spec},
            tables.allocations_of(record.key),
            tables.nodes,
            self._state.now(),
            silence=self._leases.silence(),
            origin=origin or (version.origin if version is not None else "submit"),
            no_room=no_room,
            paused=self._leases.mass_loss(),
            emptied=self.emptied(),
            suits=_Suits(self._state),
        )

    def snapshot(self, record: JobRecord, specs: Mapping[int, Job] | None = None) -> Snapshot:
        """Return what a scheduler is given for a job."""
        from khonsu.core.plan import Snapshot

        tables = self._state.tables
        fleet = self._state.columns.fleet
        return Snapshot(
            revision=self._state.closed,
            job=record,
            specs={**tables.specs(record.key), **(specs or {})},
            allocations=tables.allocations_of(record.key),
            nodes=fleet.nodes,
            fleet=fleet.snapshot(self._state.closed, job=record.key),
        )

    def emptied(self) -> frozenset[NodeId]:
        """Return the draining nodes where only copies of system jobs are left."""
        tables = self._state.tables
        return frozenset(
            node
            for node in tables.draining
            if all(
                tables.jobs[one.job_key].type is JobType.SYSTEM
                for one in tables.allocations_on(node)
                if one.live and one.job_key in tables.jobs
            )
        )


class _Suits:
    """Whether a node could ever have a copy of a group; only jobs on every node ask."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, frozenset[NodeId]] = {}

    def __call__(self, job: Job, group: Group, node: Node) -> bool:
        if group.name not in self._known:
            from khonsu.core.ask import make_ask
            from khonsu.core.feasible import eligible

            fleet = self._state.columns.fleet.snapshot(self._state.closed)
            keep = eligible(make_ask(job, group, ()), fleet)
            self._known[group.name] = frozenset(one for one, kept in zip(fleet.ids, keep, strict=True) if kept)
        return node.id in self._known[group.name]
