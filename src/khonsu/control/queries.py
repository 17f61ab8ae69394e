"""Queries: what can be read. Answers come from the tables, and leave when what they show is durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any, TypeVar

import anyio

from khonsu.control.calls import Call
from khonsu.control.find import find_allocation, find_job
from khonsu.control.nodes import Nodes
from khonsu.control.schedulers import Schedulers
from khonsu.control.state import State
from khonsu.core.codec import to_json
from khonsu.core.outcome import blocking, job_result
from khonsu.core.protocol import PROTOCOL
from khonsu.core.records import Allocation, Event, JobRecord, job_key
from khonsu.core.results import JobInfo, JobResult, SystemStatus
from khonsu.core.states import NodeStatus
from khonsu.core.status import current_allocations, group_summaries, latest_first
from khonsu.errors import InvalidRequest

T = TypeVar("T")

ROWS_MAX = 1_000
UNTIL = ("change", "placed", "done")
"""What a watch of a result may be held for."""

GROUPS_WRITTEN_INLINE_MAX = 200
EVENTS_SHOWN = 30
KEYS_BACK = tuple(1_000 * 16**step for step in range(5))
"""How many keys back the latest events of a job are looked for, one after the other."""
ALLOCATIONS_SHOWN = 200


class Queries:
    """The operations that only read. With `after` and `wait` they are held until there is something newer."""

    def __init__(self, state: State, nodes: Nodes, schedulers: Schedulers) -> None:
        """Read a state."""
        self._state = state
        self._nodes = nodes
        self._schedulers = schedulers

    # Jobs.

    async def jobs(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.list`."""
        namespace = call.namespace

        def found(_: str) -> Iterable[tuple[str, JobRecord]]:
            return _by_key((job.key, job) for job in self._state.tables.jobs.values() if job.namespace == namespace)

        return await self._list(call, ("jobs", "allocations"), found, self.info)

    async def job(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.get`."""
        await self._hold(call, (f"job:{call.job}",))
        # Not that of the tables, which are ahead of the events: a watch from it must tell of those that come meanwhile.
        revision = self._state.durable
        events = await self._events(call)

        record = find_job(self._state, call.namespace, call.text("name"))
        found = self.info(record, events=events, whole=True)
        body = await self._written(found, groups=len(found.groups))
        await self._state.settled()
        return {**body, "revision": str(revision)}

    async def result(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.result`."""
        number, run = call.optional_integer("version"), call.optional_integer("run")
        until = call.text("until", "change")
        if until not in UNTIL:
            raise InvalidRequest(f"until: found {until!r}, expected one of {', '.join(UNTIL)}")

        def answer() -> JobResult:
            record = find_job(self._state, call.namespace, call.text("name"))
            tables = self._state.tables
            return job_result(
                record,
                tables.versions[record.key],
                tables.allocations_of(record.key),
                tables.evaluations_of(record.key),
                revision=self._state.closed,
                version=number,
                run=run,
            )

        def enough() -> bool:
            if until == "change":
                return True
            result = answer()
            return result.status != "pending" or (until == "placed" and not result.unplaced)

        return await self._one(call, (f"job:{call.job}",), answer, enough)

    async def history(self, call: Call) -> Mapping[str, Any]:
        """Serve `job.history`: the newest version first."""
        record = find_job(self._state, call.namespace, call.text("name"))
        versions = self._state.tables.versions[record.key]
        revision = self._state.closed
        found = [versions[number] for number in sorted(versions, reverse=True)]
        items = await self._written(found, groups=sum(len(one.spec.groups) for one in found))
        await self._state.settled()
        return {"items": items, "next": None, "revision": str(revision)}

    def info(self, record: JobRecord, *, events: Sequence[Event] = (), whole: bool = False) -> JobInfo:
        """Return a job as it stands; `whole` with its spec, its allocations and the latest events."""
        tables = self._state.tables
        spec = tables.spec(record.key, record.version)
        allocations = tables.allocations_of(record.key)
        shown: tuple[Allocation, ...] = ()
        if whole:
            current = current_allocations(record, spec, allocations)
            known = {one.id for one in current}
            earlier = [one for one in latest_first(allocations) if one.id not in known]
            shown = (*current, *earlier[:ALLOCATIONS_SHOWN])
        return JobInfo(
            namespace=record.namespace,
            name=record.name,
            type=record.type,
            status=record.status,
            version=record.version,
            run=record.run,
            priority=spec.priority,
            stopped=record.stopped,
            stable_version=record.stable_version,
            created_at=record.created_at,
            submitted_at=record.submitted_at,
            groups=group_summaries(record, spec, allocations),
            rollout=record.rollout,
            blocked=blocking(tables.evaluations_of(record.key)),
            message=record.message,
            spec=spec if whole else None,
            allocations=shown,
            events=tuple(events),
        )

    async def _events(self, call: Call) -> tuple[Event, ...]:
        """Return the latest events of a job, the oldest of them first."""
        # Stores read forward only: so it is looked further and further back.
        for count in KEYS_BACK:
            after = self._state.key_at(self._state.keys_given - count)
            found = await self._events_after(call, after)
            if len(found) == EVENTS_SHOWN or after is None:
                return found
        return await self._events_after(call, None)

    async def _events_after(self, call: Call, after: str | None) -> tuple[Event, ...]:
        """Return the latest events of a job behind a key, the oldest of them first."""
        namespace, name = call.namespace, call.text("name")
        found: list[Event] = []
        while True:
            page = await self._state.page("event", after, ROWS_MAX, job=name, namespace=namespace)
            found = [*found, *(event for event in page if isinstance(event, Event))][-EVENTS_SHOWN:]
            if len(page) < ROWS_MAX:
                return tuple(found)
            after = found[-1].id

    # Allocations.

    async def allocations(self, call: Call) -> Mapping[str, Any]:
        """Serve `allocation.list`: of a job, of a node, or of the namespace."""
        job, node = call.optional_text("job"), call.optional_text("node")
        namespace = call.namespace
        scope = f"job:{namespace}/{job}" if job else "allocations"
        if job is not None:
            find_job(self._state, namespace, job)
        found_node = None if node is None else self._nodes.find(node)

        def found(cursor: str) -> Iterable[tuple[str, Allocation]]:
            tables = self._state.tables
            if job is not None:
                known = tables.allocations_of(job_key(namespace, job))
            elif found_node is not None:
                known = tables.allocations_on(found_node.id)
            else:
                return self._of_namespace(namespace, cursor)
            return _in_order(
                one
                for one in known
                if one.namespace == namespace and (found_node is None or one.node_id == found_node.id)
            )

        return await self._list(call, (scope,), found, lambda one: one)

    def _of_namespace(self, namespace: str, cursor: str) -> Iterator[tuple[str, Allocation]]:
        """Yield the allocations of a namespace from the job of a cursor on: only those of a page are looked at."""
        tables = self._state.tables
        begun = cursor.partition("/")[0] + "/"
        for name in sorted(f"{job.name}/" for job in tables.jobs.values() if job.namespace == namespace):
            if name >= begun:
                yield from _in_order(tables.allocations_of(job_key(namespace, name[:-1])))

    async def allocation(self, call: Call) -> Mapping[str, Any]:
        """Serve `allocation.get`."""
        allocation = find_allocation(self._state, call.namespace, call.text("id"))
        scope = f"job:{allocation.job_key}"
        return await self._one(call, (scope,), lambda: find_allocation(self._state, call.namespace, allocation.id))

    # Nodes, and the control plane itself.

    async def nodes(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.list`."""
        tables = self._state.tables
        return await self._list(
            call,
            ("nodes",),
            lambda _: _by_key((node.name, node) for node in tables.nodes.values()),
            self._nodes.seen,
        )

    async def node(self, call: Call) -> Mapping[str, Any]:
        """Serve `node.get`."""
        node = self._nodes.find(call.text("name"))
        return await self._one(call, (f"node:{node.id}",), lambda: self._nodes.find(node.id))

    async def system(self, call: Call) -> Mapping[str, Any]:
        """Serve `system.status`."""
        tables = self._state.tables

        def answer() -> SystemStatus:
            ready = sum(node.status is NodeStatus.READY for node in tables.nodes.values())
            return SystemStatus(
                cluster=str(tables.settings["cluster"].value),
                version=version("khonsu"),
                protocol=PROTOCOL,
                term=self._state.term,
                revision=self._state.closed,
                now=self._state.now(),
                nodes_ready=ready,
                nodes_down=len(tables.nodes) - ready,
                jobs=len(tables.jobs),
                allocations_live=tables.allocations.live,
                warnings=(*getattr(self._state.store, "warnings", ()), *self._schedulers.warnings),
            )

        return await self._one(call, (), answer)

    # How it is answered.

    async def _one(
        self, call: Call, scopes: Sequence[str], answer: Callable[[], object], enough: Callable[[], bool] = lambda: True
    ) -> Mapping[str, Any]:
        """Answer with one thing, and the revision that it was complete at."""
        await self._hold(call, scopes, enough)
        revision = self._state.closed
        body = to_json(answer())
        await self._state.settled()
        return {**body, "revision": str(revision)}

    async def _written(self, value: object, *, groups: int) -> Any:
        """Return values with the specs of so many groups as JSON; that of many is written on a thread."""
        if groups <= GROUPS_WRITTEN_INLINE_MAX:
            return to_json(value)
        return await self._state.env.run_blocking(to_json, value)

    async def _list(
        self,
        call: Call,
        scopes: Sequence[str],
        found: Callable[[str], Iterable[tuple[str, T]]],
        show: Callable[[T], object],
    ) -> Mapping[str, Any]:
        """Answer with a page of things, which are found in the order of their keys; the cursor is the last key.

        What is found may leave out what is certainly before the cursor.
        """
        limit = call.integer("limit", ROWS_MAX, least=1, most=ROWS_MAX)
        cursor = call.optional_text("cursor") or ""
        await self._hold(call, scopes)
        revision = self._state.closed
        rows = list(islice(((key, one) for key, one in found(cursor) if key > cursor), limit + 1))
        page = rows[:limit]
        items = [to_json(show(one)) for _, one in page]
        await self._state.settled()
        return {"items": items, "next": page[-1][0] if len(rows) > limit else None, "revision": str(revision)}

    async def _hold(self, call: Call, scopes: Sequence[str], enough: Callable[[], bool] = lambda: True) -> None:
        """Hold a watch until one of its scopes is newer than what the caller has seen, or its time is over."""
        after = call.after(self._state.durable)
        if after is None or not call.wait_seconds or not scopes:
            return
        with anyio.move_on_after(call.wait_seconds):
            await self._state.wait_until(lambda: self._state.newer(after, *scopes) and enough(), *scopes)


def _by_key(rows: Iterable[tuple[str, T]]) -> list[tuple[str, T]]:
    return sorted(rows, key=lambda row: row[0])


def _in_order(allocations: Iterable[Allocation]) -> list[tuple[str, Allocation]]:
    """Return allocations by job, group, slot and age, each with a key that says so."""
    return _by_key(
        (f"{one.job}/{one.group}/{one.slot:09}/{one.created_at:020.6f}/{one.id}", one) for one in allocations
    )
