"""Scopes: names for parts of the state (`job:default/web`, `nodes`), when they last changed, and who waits for that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import anyio

from khonsu.control.placed import Placed
from khonsu.core.records import Allocation, Evaluation, Event, JobRecord, JobVersion, Node, Record
from khonsu.core.revision import ZERO, Revision

SCOPES_MAX = 100_000
"""Of so many scopes it is known when they were last touched; of the others only that it was not lately."""


class Scopes:
    """When scopes were last touched, and who waits for them. Waiters wake in the order in which they came."""

    def __init__(self) -> None:
        """Know of nothing."""
        self._start = ZERO
        self._touched: dict[str, Revision] = {}
        self._waiters: defaultdict[str, dict[anyio.Event, None]] = defaultdict(dict)

    def begin(self, revision: Revision) -> None:
        """Begin anew: everything may have been touched up to a revision."""
        self._start = revision
        self._touched.clear()

    def touch(self, scopes: Iterable[str], revision: Revision) -> None:
        """Note when scopes were touched, and forget those that were not for the longest time."""
        for scope in scopes:
            self._touched.pop(scope, None)
            self._touched[scope] = revision
        while len(self._touched) > SCOPES_MAX:
            self._start = self._touched.pop(next(iter(self._touched)))

    def touched(self, *scopes: str) -> Revision:
        """Return the last revision that touched one of the scopes, or a later one for what was not touched lately."""
        return max(self._start, *(self._touched.get(scope, self._start) for scope in scopes))

    async def wait_until(self, condition: Callable[[], bool], *scopes: str) -> None:
        """Wait until a condition holds, looking again whenever one of the scopes is woken."""
        while not condition():
            event = anyio.Event()
            for scope in scopes:
                self._waiters[scope][event] = None
            try:
                await event.wait()
            finally:
                self._leave(event, scopes)

    def wake(self, scope: str) -> None:
        """Have those who wait for a scope look again."""
        for event in self._waiters.get(scope, ()):
            event.set()

    def wake_each(self, scopes: Iterable[str]) -> None:
        """Have those who wait for some scopes look again, in the order of the scopes."""
        for scope in scopes:
            if scope in self._waiters:
                self.wake(scope)

    def wake_all(self) -> None:
        """Have all who wait look again."""
        for scope in list(self._waiters):
            self.wake(scope)

    def _leave(self, event: anyio.Event, scopes: Iterable[str]) -> None:
        for scope in dict.fromkeys(scopes):
            del self._waiters[scope][event]
            if not self._waiters[scope]:
                del self._waiters[scope]


def scopes_of(before: Record | None, after: Record | None, number: int) -> Iterable[str]:
    """Return the scopes that a change of a record touches, made with the revision of a number."""
    match after if after is not None else before:
        case Allocation(desired_at=desired_at, node_id=node, job_key=job):
            assigned = (f"assign:{node}",) if desired_at == number or after is None else ()
            return (f"job:{job}", "allocations", *assigned)
        case JobRecord(key=job):
            return (f"job:{job}", "jobs")
        case JobVersion(job=job) | Evaluation(job=job):
            return (f"job:{job}",)
        case Node(id=node):
            return (f"node:{node}", "nodes", f"assign:{node}")
        case Event():
            return ("events",)
        case _:
            return ()


def scopes_of_placed(placed: Placed) -> Iterable[str]:
    """Return the scopes that new allocations touch."""
    return (f"job:{placed.job}", "allocations", *(f"assign:{node}" for node in dict.fromkeys(placed.node_ids)))
