"""The client: one method for each thing that a control plane can be asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from khonsu.abc.transport import ByteStream, Connection, Identity, Request, Transport
from khonsu.client.stream import Stream
from khonsu.client.waiting import Patience, Until, wait_for
from khonsu.core.codec import from_json, loads, to_json
from khonsu.core.ids import AllocationId
from khonsu.core.job import Job
from khonsu.core.protocol import LogLine
from khonsu.core.records import Allocation, Event, JobVersion, Node
from khonsu.core.results import Explanation, Invitation, JobInfo, JobPlan, JobResult, Submission, SystemStatus
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.units import DurationLike, optional_seconds, seconds
from khonsu.env import Env, SystemEnv
from khonsu.errors import NotFound, WaitTimeout

T = TypeVar("T")

JobLike = Job | JobInfo | Submission | JobResult | str
AllocationLike = Allocation | str
NodeLike = Node | str
LogStream = Literal["both", "stdout", "stderr"]

PAGE_ROWS = 1_000
NODES_HOLD_SECONDS = 30.0


class Client:
    """A client of a control plane; its methods may run concurrently.

    Used as an async context manager it keeps one connection; otherwise each call makes its own.

    Args:
        server: An address such as `https://khonsu.example:4747`, or a transport. None takes `KHONSU_SERVER`, then the
            profile of `khonsu login`.
        token: The credential; None takes `KHONSU_TOKEN`, then that of the profile.
        namespace: The namespace of all jobs and allocations that are named.
        ca: The certificate of the control plane's authority as PEM text or file; None takes that of the profile.
        env: Time and chance.

    """

    def __init__(  # noqa: D417 - the class documents them
        self,
        server: str | Transport | None = None,
        /,
        *,
        token: Secret | str | None = None,
        namespace: str = "default",
        ca: str | Path | None = None,
        env: Env | None = None,
    ) -> None:
        """Make a client; nothing is dialled yet."""
        if isinstance(server, Transport):
            self._transport = server
            credential = None if token is None else Secret.of(token)
        else:
            from khonsu.client.resolve import resolve  # only where a name must be resolved

            self._transport, credential = resolve(server, token, ca)
        self._identity = None if credential is None else Identity(credential=credential)
        self._connection: Connection | None = None
        self._stack: AsyncExitStack | None = None
        self._env = env if env is not None else SystemEnv()
        self.namespace = namespace

    async def __aenter__(self) -> Self:
        """Keep a connection for the length of the block."""
        self._stack = AsyncExitStack()
        self._connection = await self._stack.enter_async_context(self._transport.connect(self._identity))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the connection go."""
        stack, self._stack, self._connection = self._stack, None, None
        if stack is not None:
            await stack.__aexit__(exc_type, exc, traceback)

    # Jobs.

    async def submit(
        self,
        job: Job,
        /,
        *,
        rerun: bool = False,
        expect_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Submission:
        """Submit a job.

        Args:
            job: The job; one equal to the present version changes nothing.
            rerun: Whether a finished, unchanged batch job runs again.
            expect_version: The version that must be the present one, 0 for none.
            idempotency_key: Makes a repeat of this call the same submission.

        Raises:
            InvalidJob: With every mistake.
            VersionConflict: Another version is the present one.

        """
        key = idempotency_key or self._env.token_bytes(16).hex()
        body = {"job": to_json(job), "rerun": rerun, "expect_version": expect_version, "namespace": job.namespace}
        return from_json(Submission, await self._call("job.submit", body, key=key))

    async def wait(
        self,
        target: JobLike,
        /,
        *,
        timeout: DurationLike | None = None,  # noqa: ASYNC109 - the contract's name
        placement_timeout: DurationLike = "10s",
        until: Until = "done",
        progress: Callable[[JobResult], None] | None = None,
    ) -> JobResult:
        """Wait until a run of a job is done: a service when all copies are healthy, a batch job when it finished.

        A job that failed, was reverted, stopped, superseded or is blocked is returned, not raised.

        Args:
            target: The job, or the submission whose run is meant.
            timeout: How long to wait in all; None is without end.
            placement_timeout: How long the job may find no place before it is returned as blocked.
            until: Also `"placed"`: as soon as every copy has a place.
            progress: Called with each result on the way.

        Raises:
            WaitTimeout: Time ran out; `result` says what is pending, and why.

        """
        body: dict[str, Any] = self._job(target)
        if isinstance(target, (Submission, JobResult)):
            body |= {"version": target.version, "run": target.run}
        patience = Patience(
            until=until,
            timeout_seconds=optional_seconds(timeout),
            placement_seconds=seconds(placement_timeout),
        )

        async def ask(after: Revision | None, hold: float) -> JobResult:
            watch = {} if after is None else {"after": str(after), "wait": hold}
            return from_json(JobResult, await self._call("job.result", {**body, **watch}))

        return await wait_for(ask, patience, self._env, progress or (lambda _: None))

    async def run(self, job: Job, /, *, timeout: DurationLike | None = None) -> JobResult:  # noqa: ASYNC109
        """Submit a job, again if it is a finished batch job, and wait for it."""
        return await self.wait(await self.submit(job, rerun=True), timeout=timeout)

    async def plan(self, job: Job, /) -> JobPlan:
        """Return what submitting a job would change and where its copies would go; commits nothing."""
        return from_json(JobPlan, await self._call("job.plan", {"job": to_json(job), "namespace": job.namespace}))

    async def explain(self, name: JobLike, /) -> Explanation:
        """Return why a job's copies are where they are, and why the others are nowhere."""
        return from_json(Explanation, await self._call("job.explain", self._job(name)))

    async def job(self, name: JobLike, /) -> JobInfo:
        """Return a job as it stands, with its allocations and latest events."""
        return from_json(JobInfo, await self._call("job.get", self._job(name)))

    async def jobs(self) -> tuple[JobInfo, ...]:
        """Return the jobs of the namespace, by name."""
        return await self._list("job.list", JobInfo, {"namespace": self.namespace})

    async def history(self, name: JobLike, /) -> tuple[JobVersion, ...]:
        """Return the versions of a job, the newest first."""
        body = await self._call("job.history", self._job(name))
        return from_json(tuple[JobVersion, ...], body["items"])

    async def revert(self, name: JobLike, /, *, version: int) -> Submission:
        """Submit an earlier version's spec again, as a new version."""
        return from_json(Submission, await self._call("job.revert", {**self._job(name), "version": version}))

    async def scale(self, name: JobLike, /, count: int, *, group: str | None = None) -> Submission:
        """Change the count of a group, as a new version; the group need not be named where there is only one."""
        body = {**self._job(name), "count": count, "group": group}
        return from_json(Submission, await self._call("job.scale", body))

    async def stop(self, name: JobLike, /, *, purge: bool = False) -> JobInfo:
        """Stop a job; with `purge`, forget it as soon as its copies have ended."""
        return from_json(JobInfo, await self._call("job.stop", {**self._job(name), "purge": purge}))

    # Allocations.

    async def allocations(self, *, job: JobLike | None = None, node: NodeLike | None = None) -> tuple[Allocation, ...]:
        """Return allocations, live and ended, of a job, of a node, or of the namespace."""
        body: dict[str, Any] = {"namespace": self.namespace}
        if job is not None:
            named = self._job(job)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        if node is not None:
            body["node"] = _node(node)
        return await self._list("allocation.list", Allocation, body)

    async def allocation(self, id: AllocationLike, /) -> Allocation:  # noqa: A002 - the contract's name
        """Return an allocation, by its id or a prefix that no other has."""
        return from_json(Allocation, await self._call("allocation.get", self._allocation(id)))

    async def stop_allocation(self, id: AllocationLike, /) -> Allocation:  # noqa: A002 - the contract's name
        """Stop one copy; its slot is placed again."""
        return from_json(Allocation, await self._call("allocation.stop", self._allocation(id)))

    # Nodes.

    async def nodes(self) -> tuple[Node, ...]:
        """Return the nodes, by name."""
        return await self._list("node.list", Node, {})

    async def node(self, name: NodeLike, /) -> Node:
        """Return a node, by its name, its id or a prefix of that."""
        return from_json(Node, await self._call("node.get", {"name": _node(name)}))

    async def drain_node(self, name: NodeLike, /, *, deadline: DurationLike = "10m") -> Node:
        """Move all work off a node; what is left at the deadline is stopped."""
        body = {"name": _node(name), "deadline_seconds": seconds(deadline)}
        return from_json(Node, await self._call("node.drain", body))

    async def undrain_node(self, name: NodeLike, /) -> Node:
        """Give a node work again."""
        return from_json(Node, await self._call("node.undrain", {"name": _node(name)}))

    async def remove_node(self, name: NodeLike, /) -> Node:
        """Forget a node that is down; what may still run there is given up."""
        return from_json(Node, await self._call("node.remove", {"name": _node(name)}))

    async def invite_node(
        self, *, name: str | None = None, labels: Mapping[str, str] | None = None, valid: DurationLike = "15m"
    ) -> Invitation:
        """Make a join token for one node."""
        body = {"node_name": name, "labels": dict(labels or {}), "valid_seconds": seconds(valid)}
        return from_json(Invitation, await self._call("node.invite", body))

    async def wait_for_nodes(self, count: int, /, *, timeout: DurationLike | None = None) -> tuple[Node, ...]:  # noqa: ASYNC109
        """Wait until so many nodes may be given work, and return them.

        Raises:
            WaitTimeout: Time ran out.

        """
        limit = optional_seconds(timeout)
        deadline = float("inf") if limit is None else self._env.monotonic() + limit
        after: str | None = None
        while True:
            hold = min(NODES_HOLD_SECONDS, max(0.0, deadline - self._env.monotonic()))
            body: dict[str, Any] = {} if after is None else {"after": after, "wait": hold}
            answer = await self._call("node.list", {**body, "limit": PAGE_ROWS})
            after = answer["revision"]
            ready = [node for node in from_json(tuple[Node, ...], answer["items"]) if node.schedulable]
            if len(ready) >= count:
                return tuple(ready)
            if self._env.monotonic() >= deadline:
                raise WaitTimeout(f"{len(ready)} of {count} nodes are ready", result=tuple(ready))

    # Streams.

    def logs(
        self,
        target: JobLike | AllocationLike,
        /,
        *,
        task: str | None = None,
        follow: bool = False,
        stream: LogStream = "both",
        tail: int | None = None,
        since: DurationLike | None = None,
    ) -> Stream[LogLine]:
        """Stream the output of a job's copies or of one allocation.

        Args:
            target: The job or the allocation; a text is a job's name first, then an allocation's id.
            task: Only this task.
            follow: Whether to go on as output comes, until the tasks have ended.
            stream: Only this stream.
            tail: Only so many lines of each at the start.
            since: Only what was written within this time.

        """
        options: dict[str, Any] = {"task": task, "follow": follow, "stream": stream, "tail": tail}
        if since is not None:
            options["since"] = self._env.now() - seconds(since)
        return Stream(partial(self._open_logs, target, options), partial(loads, LogLine))

    def events(
        self,
        *,
        after: Revision | None = None,
        job: JobLike | None = None,
        node: NodeLike | None = None,
        types: Sequence[str] = (),
        follow: bool = True,
    ) -> Stream[Event]:
        """Stream what happens, from a revision on; each event has the revision to resume after.

        Raises:
            HistoryGone: On entry: the revision is of an ended term, or was pruned.

        """
        body: dict[str, Any] = {"follow": follow, "types": ",".join(types) or None}
        body["after"] = None if after is None else str(after)
        body["node"] = None if node is None else _node(node)
        if job is not None:
            named = self._job(job)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        return Stream(partial(self._open, "event.stream", body), partial(loads, Event))

    async def status(self) -> SystemStatus:
        """Return the state of the control plane itself."""
        return from_json(SystemStatus, await self._call("system.status", {}))

    # How it is asked.

    async def _call(self, operation: str, body: Mapping[str, Any], *, key: str | None = None) -> Mapping[str, Any]:
        given = {name: value for name, value in body.items() if value is not None}
        request = Request(operation=operation, body=given, idempotency_key=key)
        async with self._connected() as connection:
            return (await connection.call(request)).body

    async def _list(self, operation: str, kind: type[T], body: Mapping[str, Any]) -> tuple[T, ...]:
        found: list[T] = []
        cursor: str | None = None
        while True:
            page = await self._call(operation, {**body, "limit": PAGE_ROWS, "cursor": cursor})
            found.extend(from_json(tuple[kind, ...], page["items"]))  # type: ignore[valid-type]
            cursor = page["next"]
            if cursor is None:
                return tuple(found)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        if self._connection is not None:
            yield self._connection
            return
        async with self._transport.connect(self._identity) as connection:
            yield connection

    @asynccontextmanager
    async def _open(self, operation: str, body: Mapping[str, Any]) -> AsyncGenerator[ByteStream, None]:
        given = {name: value for name, value in body.items() if value is not None}
        async with (
            self._connected() as connection,
            connection.stream(Request(operation=operation, body=given)) as stream,
        ):
            yield stream

    @asynccontextmanager
    async def _open_logs(
        self, target: JobLike | AllocationLike, options: Mapping[str, Any]
    ) -> AsyncGenerator[ByteStream, None]:
        if isinstance(target, Allocation):
            opening = self._open("allocation.logs", {**self._allocation(target), **options})
        elif isinstance(target, str) and not await self._is_job(target):
            opening = self._open("allocation.logs", {**self._allocation(target), **options})
        else:
            opening = self._open("job.logs", {**self._job(target), **options})
        async with opening as stream:
            yield stream

    async def _is_job(self, name: str) -> bool:
        """Return whether a text names a job rather than an allocation."""
        try:
            await self._call("job.get", self._job(name))
        except NotFound as error:
            try:
                await self._call("allocation.get", self._allocation(name))
            except NotFound:
                raise error from None
            return False
        return True

    def _job(self, target: JobLike) -> dict[str, Any]:
        match target:
            case str():
                return {"namespace": self.namespace, "name": target}
            case Job() | JobInfo():
                return {"namespace": target.namespace, "name": target.name}
            case _:
                return {"namespace": target.namespace, "name": target.job}

    def _allocation(self, target: AllocationLike) -> dict[str, Any]:
        if isinstance(target, Allocation):
            return {"namespace": target.namespace, "id": AllocationId(target.id)}
        return {"namespace": self.namespace, "id": target}


def _node(target: NodeLike) -> str:
    return target if isinstance(target, str) else target.name


