"""The allocations in memory: by id, by job and by node, in the order in which they were made."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from khonsu.control.placed import Placed
from khonsu.core.ids import AllocationId
from khonsu.core.records import Allocation
from khonsu.core.states import AllocationStatus


class Allocations(Mapping[str, Allocation]):
    """All allocations. Those that nobody has asked for since they were placed are columns still (`Placed`)."""

    def __init__(self) -> None:
        """Start empty."""
        self._all: dict[AllocationId, Allocation | Placed] = {}
        self._of_job: defaultdict[str, dict[AllocationId, None]] = defaultdict(dict)
        self._on_node: defaultdict[str, dict[AllocationId, None]] = defaultdict(dict)
        self._changed: dict[str, int] = {}
        """By node, the number of the last revision that changed what is wanted of one of its allocations."""
        self._unknown: Counter[str] = Counter()
        self._ended: Counter[str] = Counter()
        self.live = 0
        """How many count against their nodes."""

    def __getitem__(self, key: str) -> Allocation:
        """Return an allocation by its id."""
        return self._made(AllocationId(key))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids."""
        return iter(self._all)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._all)

    def of_job(self, job: str) -> tuple[Allocation, ...]:
        """Return the allocations of a job, live and ended."""
        return tuple([self._made(key) for key in self._of_job.get(job, ())])

    def on_node(self, node: str) -> tuple[Allocation, ...]:
        """Return the allocations of a node, live and ended."""
        return tuple([self._made(key) for key in self._on_node.get(node, ())])

    def assigned(self, node: str, after: int) -> list[Allocation]:
        """Return the allocations of a node of which something else is wanted since the revision of a number.

        They are live, or were given up: who has not heard of that may run them still.
        """
        if self._changed.get(node, -1) <= after:
            return []
        known = self._all
        keys = [key for key in self._on_node.get(node, ()) if known[key].desired_at > after]
        return [one for one in map(self._made, keys) if one.live or one.status is AllocationStatus.LOST]

    def unknown(self, node: str) -> bool:
        """Return whether it is unknown what some allocation of a node does."""
        return self._unknown[node] > 0

    def ended(self, job: str) -> int:
        """Return how many allocations of a job have ended."""
        return self._ended[job]

    def counts(self) -> Counter[str]:
        """Return how many there are of each status."""
        pending = AllocationStatus.PENDING
        return Counter(str(pending if isinstance(one, Placed) else one.status) for one in self._all.values())

    def add(self, placed: Placed) -> None:
        """Take new allocations."""
        ids = placed.ids()
        self._all.update(dict.fromkeys(ids, placed))
        self._of_job[placed.job].update(dict.fromkeys(ids))
        on_node = self._on_node
        for key, node in zip(ids, placed.node_ids, strict=True):
            on_node[node][key] = None
        self._changed.update(dict.fromkeys(placed.node_ids, placed.desired_at))
        self.live += len(ids)

    def put(self, record: Allocation) -> None:
        """Take an allocation, over an earlier one with the same id."""
        before = self.get(record.id)
        self._all[record.id] = record
        self._changed[record.node_id] = max(record.desired_at, self._changed.get(record.node_id, 0))
        self._count(record, 1)
        if before is not None:
            self._count(before, -1)
        else:
            self._of_job[record.job_key][record.id] = None
            self._on_node[record.node_id][record.id] = None

    def drop(self, key: str) -> None:
        """Forget an allocation; one that is not here is passed over."""
        record = self.get(key)
        if record is None:
            return
        del self._all[record.id]
        self._count(record, -1)
        for index, owner in ((self._of_job, record.job_key), (self._on_node, record.node_id)):
            del index[owner][record.id]
            if not index[owner]:
                del index[owner]
        if record.node_id not in self._on_node:
            del self._changed[record.node_id]

    def _count(self, record: Allocation, sign: int) -> None:
        self.live += sign * record.live
        if not record.live:
            _add(self._ended, record.job_key, sign)
        if record.status is AllocationStatus.UNKNOWN:
            _add(self._unknown, record.node_id, sign)

    def _made(self, key: AllocationId) -> Allocation:
        found = self._all[key]
        if isinstance(found, Placed):
            found = self._all[key] = found.make(key)
        return found


def _add(counter: Counter[str], key: str, sign: int) -> None:
    """Count one more or less, and keep no entry for none."""
    counter[key] += sign
    if not counter[key]:
        del counter[key]
