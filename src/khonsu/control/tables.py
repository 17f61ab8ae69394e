"""The tables: the records that are looked at all the time, in memory, with the indexes that the loops need.

A pure fold over change lists: the same changes in the same order give the same tables. They are rebuilt from the
store at start and after a failed commit, and are never authoritative.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from khonsu.control.allocations import Allocations
from khonsu.core.ids import NodeId
from khonsu.core.job import Group, Job
from khonsu.core.records import (
    Allocation,
    Credential,
    Evaluation,
    JobRecord,
    JobVersion,
    JoinToken,
    Node,
    Record,
    Setting,
)
from khonsu.core.states import Eligibility, EvaluationStatus
from khonsu.errors import ensure

K = TypeVar("K")
V = TypeVar("V")

ACTIVE = (EvaluationStatus.PENDING, EvaluationStatus.BLOCKED)

HOT_KINDS = ("setting", "node", "job", "job_version", "allocation", "credential", "join_token")
"""The kinds that are kept in memory whole, in the order in which they are loaded; of evaluations only the active."""


class Tables:
    """Records by key, and by what they belong to. Changed only by `put` and `delete`."""

    def __init__(self) -> None:
        """Start empty."""
        self.settings: dict[str, Setting] = {}
        self.nodes: dict[NodeId, Node] = {}
        self.node_ids: dict[str, NodeId] = {}
        self.draining: dict[NodeId, None] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.versions: defaultdict[str, dict[int, JobVersion]] = defaultdict(dict)
        self.evaluations: dict[str, Evaluation] = {}
        self.job_evaluations: defaultdict[str, dict[str, Evaluation]] = defaultdict(dict)
        self.allocations = Allocations()
        self.credentials: dict[str, Credential] = {}
        self.join_tokens: dict[str, JoinToken] = {}
        self._by_kind: dict[str, Mapping[Any, Record]] = {
            "setting": self.settings,
            "node": self.nodes,
            "job": self.jobs,
            "evaluation": self.evaluations,
            "allocation": self.allocations,
            "credential": self.credentials,
            "join_token": self.join_tokens,
        }

    def find(self, kind: str, key: str) -> Record | None:
        """Return a record, or None where it is not there or not kept in memory."""
        if kind == "job_version":
            job, _, version = key.rpartition("/")
            return self.versions.get(job, {}).get(int(version))
        return self._by_kind.get(kind, {}).get(key)

    def put(self, record: Record) -> None:
        """Take a record, over an earlier one with the same key."""
        match record:
            case Allocation():
                self.allocations.put(record)
            case Evaluation():
                self._put_evaluation(record)
            case JobRecord():
                self.jobs[record.key] = record
            case JobVersion():
                self.versions[record.job][record.version] = record
            case Node():
                self._put_node(record)
            case Credential():
                self.credentials[record.id] = record
            case JoinToken():
                self.join_tokens[record.id] = record
            case Setting():
                self.settings[record.key] = record
            case _:
                pass  # events and idempotency keys are read from the store

    def _put_node(self, record: Node) -> None:
        self.nodes[record.id] = record
        self.node_ids[record.name] = record.id
        if record.eligibility is Eligibility.DRAINING:
            self.draining[record.id] = None
        else:
            self.draining.pop(record.id, None)

    def _put_evaluation(self, record: Evaluation) -> None:
        if record.status in ACTIVE:
            self.evaluations[record.id] = record
            self.job_evaluations[record.job][record.id] = record
        else:
            self._drop_evaluation(record.id)

    def _drop_evaluation(self, key: str) -> None:
        record = self.evaluations.pop(key, None)
        if record is not None:
            _discard(self.job_evaluations, record.job, key)

    def delete(self, kind: str, key: str) -> None:
        """Drop a record; one that is not here is passed over."""
        record = self.find(kind, key)
        match record:
            case Allocation():
                self.allocations.drop(key)
            case Evaluation():
                self._drop_evaluation(key)
            case JobRecord():
                del self.jobs[key]
            case JobVersion():
                _discard(self.versions, record.job, record.version)
            case Node():
                del self.nodes[record.id]
                self.draining.pop(record.id, None)
                if self.node_ids.get(record.name) == key:
                    del self.node_ids[record.name]
            case Credential():
                del self.credentials[key]
            case JoinToken():
                del self.join_tokens[key]
            case Setting():
                del self.settings[key]
            case _:
                pass

    # What the loops ask.

    def node_named(self, name: str) -> Node | None:
        """Return a node by its name or its id."""
        return self.nodes.get(self.node_ids.get(name, NodeId(name)))

    def allocations_of(self, job: str) -> tuple[Allocation, ...]:
        """Return the allocations of a job, live and ended."""
        return self.allocations.of_job(job)

    def allocations_on(self, node: str) -> tuple[Allocation, ...]:
        """Return the allocations of a node, live and ended."""
        return self.allocations.on_node(node)

    def live_allocations(self) -> Iterator[Allocation]:
        """Iterate over the allocations that count against their nodes."""
        return (allocation for allocation in self.allocations.values() if allocation.live)

    def evaluations_of(self, job: str) -> tuple[Evaluation, ...]:
        """Return the pending and blocked evaluations of a job."""
        found = self.job_evaluations.get(job)
        return tuple(found.values()) if found else ()

    def spec(self, job: str, version: int) -> Job:
        """Return the spec of a version that is known to be there."""
        record = self.versions[job].get(version)
        ensure(record is not None, f"job {job} has version {version}")
        assert record is not None
        return record.spec

    def specs(self, job: str) -> Mapping[int, Job]:
        """Return the specs of a job by version."""
        return {number: version.spec for number, version in self.versions.get(job, {}).items()}

    def group(self, allocation: Allocation) -> Group:
        """Return the spec of the group that an allocation is a copy of."""
        return self.group_named(allocation.job_key, allocation.version, allocation.group)

    def group_named(self, job: str, version: int, name: str) -> Group:
        """Return the spec of a group that is known to be there."""
        group = self.spec(job, version).group(name)
        ensure(group is not None, f"version {version} of {job} has group {name}")
        assert group is not None
        return group

    def load(self, records: Iterable[Record]) -> None:
        """Take many records."""
        for record in records:
            self.put(record)


def _discard(index: dict[str, dict[K, V]], owner: str, key: K) -> None:
    """Remove an entry, and its owner's table when that is empty."""
    table = index.get(owner)
    if table is not None:
        table.pop(key, None)
        if not table:
            del index[owner]
