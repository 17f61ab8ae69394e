"""The client: one method for each thing that a control plane can be asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from attrs import evolve

from khonsu.abc.transport import ByteStream, Transport
from khonsu.client.asking import Asker
from khonsu.client.stream import Stream
from khonsu.client.targets import (
    AllocationLike,
    JobLike,
    NodeLike,
    named_allocation,
    named_job,
    named_node,
    named_run,
    placed_in,
)
from khonsu.client.waiting import Look, Patience, Until, Wait
from khonsu.core.codec import from_json, loads, to_json
from khonsu.core.job import Job
from khonsu.core.protocol import LogLine
from khonsu.core.records import Allocation, Event, JobVersion, Node
from khonsu.core.results import Explanation, Invitation, JobInfo, JobPlan, JobResult, Submission, SystemStatus
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.units import DurationLike, optional_seconds, seconds
from khonsu.env import Env, SystemEnv
from khonsu.errors import HistoryGone, NotFound, WaitTimeout

LogStream: TypeAlias = Literal["both", "stdout", "stderr"]
Progress: TypeAlias = Callable[[JobResult], None]

NODES_HOLD_SECONDS = 30.0


class Client:
    """A client of a control plane; its methods may run concurrently.

    Used as an async context manager it keeps its connection; otherwise each call makes its own.

    Args:
        server: An address such as `https://khonsu.example:4747`, or a transport. None takes `KHONSU_SERVER`, then the
            server of `KHONSU_DATA_DIR` on this machine, then the profile of `khonsu login`.
        token: The credential; None takes `KHONSU_TOKEN`, then what belongs to the server.
        namespace: The namespace of everything that is named, and of jobs that name none but the default.
        ca: The certificate of the control plane's authority as PEM text or file; None takes what belongs to the server.
        env: Time and chance.

    Raises:
        InvalidRequest: Nothing says which server is meant, or whom to trust.

    """

    def __init__(
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
            transport, credential = server, None if token is None else Secret.of(token)
        else:
            from khonsu.client.resolve import resolve  # only where a name must be resolved

            transport, credential = resolve(server, token, ca)
        self._asker = Asker(transport, credential)
        self._env = env if env is not None else SystemEnv()
        self.namespace = namespace

    async def __aenter__(self) -> Self:
        """Keep a connection for the length of the block."""
        await self._asker.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the connection go."""
        await self._asker.close(exc_type, exc, traceback)

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
        body = {**self._spec(job), "rerun": rerun, "expect_version": expect_version}
        return from_json(Submission, await self._asker.call("job.submit", body, key=key))

    async def wait(
        self,
        target: JobLike,
        /,
        *,
        timeout: DurationLike | None = None,
        placement_timeout: DurationLike = "10s",
        until: Until = "done",
        progress: Progress | None = None,
    ) -> JobResult:
        """Wait until a run of a job is done: a service when all copies are healthy, a batch job when it finished.

        A job that failed, was reverted, stopped, superseded or is blocked is returned, not raised. A control plane that
        is away for a while, such as one that is started anew, is asked again.

        Args:
            target: The job, of which the present run is meant, or a submission, whose run is meant.
            timeout: How long to wait in all; None is without end.
            placement_timeout: How long the job may find no place before it is returned as blocked.
            until: Also `"placed"`: as soon as every copy has a place.
            progress: Called with each result on the way.

        Raises:
            WaitTimeout: Time ran out; `result` says what is pending, and why.
            Unreachable: The control plane is away.

        """
        named = named_run(target, self.namespace)
        patience = Patience(
            until=until,
            timeout_seconds=optional_seconds(timeout),
            placement_seconds=seconds(placement_timeout),
        )

        async def ask(look: Look) -> JobResult:
            run = {"version": look.version, "run": look.run} if look.version is not None else {}
            watch: dict[str, Any] = {}
            if look.after is not None:
                # Without somebody who watches the progress, one answer at the end will do.
                held = "change" if progress is not None else until
                watch = {"after": str(look.after), "wait": look.hold_seconds, "until": held}
            return from_json(JobResult, await self._asker.call("job.result", {**named, **run, **watch}))

        try:
            result = await Wait(ask, patience, self._env, progress or _ignore).end()
        except WaitTimeout as error:
            if isinstance(error.result, JobResult):
                error.result = await self._explained(error.result)
            raise
        return await self._explained(result)

    async def _explained(self, result: JobResult) -> JobResult:
        """Return a result with the reason why copies have no place, where some have none."""
        if result.explanation is not None or not result.unplaced or result.status not in ("blocked", "pending"):
            return result
        try:
            return evolve(result, explanation=await self.explain(result))
        except NotFound:  # it was purged meanwhile
            return result

    async def run(self, job: Job, /, *, timeout: DurationLike | None = None) -> JobResult:
        """Submit a job, again if it is a finished batch job, and wait for it."""
        return await self.wait(await self.submit(job, rerun=True), timeout=timeout)

    async def plan(self, job: Job, /) -> JobPlan:
        """Return what submitting a job would change and where its copies would go; commits nothing."""
        return from_json(JobPlan, await self._asker.call("job.plan", self._spec(job)))

    async def explain(self, name: JobLike, /) -> Explanation:
        """Return why a job's copies are where they are, and why the others are nowhere."""
        return from_json(Explanation, await self._asker.call("job.explain", named_job(name, self.namespace)))

    async def job(self, name: JobLike, /) -> JobInfo:
        """Return a job as it stands, with its allocations and latest events."""
        return from_json(JobInfo, await self._asker.call("job.get", named_job(name, self.namespace)))

    async def jobs(self) -> tuple[JobInfo, ...]:
        """Return the jobs of the namespace, by name."""
        return await self._asker.pages("job.list", JobInfo, {"namespace": self.namespace})

    async def history(self, name: JobLike, /) -> tuple[JobVersion, ...]:
        """Return the versions of a job, the newest first."""
        body = await self._asker.call("job.history", named_job(name, self.namespace))
        return from_json(tuple[JobVersion, ...], body["items"])

    async def revert(self, name: JobLike, /, *, version: int) -> Submission:
        """Submit an earlier version's spec again, as a new version."""
        return from_json(
            Submission, await self._asker.call("job.revert", {**named_job(name, self.namespace), "version": version})
        )

    async def scale(self, name: JobLike, /, count: int, *, group: str | None = None) -> Submission:
        """Change the count of a group, as a new version; the group need not be named where there is only one."""
        body = {**named_job(name, self.namespace), "count": count, "group": group}
        return from_json(Submission, await self._asker.call("job.scale", body))

    async def stop(self, name: JobLike, /, *, purge: bool = False) -> JobInfo:
        """Stop a job; with `purge`, forget it as soon as its copies have ended."""
        return from_json(
            JobInfo, await self._asker.call("job.stop", {**named_job(name, self.namespace), "purge": purge})
        )

    # Allocations.

    async def allocations(self, *, job: JobLike | None = None, node: NodeLike | None = None) -> tuple[Allocation, ...]:
        """Return allocations, live and ended, of a job, of a node, or of the namespace."""
        body: dict[str, Any] = {"namespace": self.namespace}
        if job is not None:
            named = named_job(job, self.namespace)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        if node is not None:
            body["node"] = named_node(node)
        return await self._asker.pages("allocation.list", Allocation, body)

    async def allocation(self, id: AllocationLike, /) -> Allocation:
        """Return an allocation, by its id or a prefix that no other has."""
        return from_json(Allocation, await self._asker.call("allocation.get", named_allocation(id, self.namespace)))

    async def stop_allocation(self, id: AllocationLike, /) -> Allocation:
        """Stop one copy; its slot is placed again."""
        return from_json(Allocation, await self._asker.call("allocation.stop", named_allocation(id, self.namespace)))

    # Nodes.

    async def nodes(self) -> tuple[Node, ...]:
        """Return the nodes, by name."""
        return await self._asker.pages("node.list", Node, {})

    async def node(self, name: NodeLike, /) -> Node:
        """Return a node, by its name, its id or a prefix of that."""
        return from_json(Node, await self._asker.call("node.get", {"name": named_node(name)}))

    async def drain_node(self, name: NodeLike, /, *, deadline: DurationLike = "10m") -> Node:
        """Move all work off a node; what is left at the deadline is stopped."""
        body = {"name": named_node(name), "deadline_seconds": seconds(deadline)}
        return from_json(Node, await self._asker.call("node.drain", body))

    async def undrain_node(self, name: NodeLike, /) -> Node:
        """Give a node work again."""
        return from_json(Node, await self._asker.call("node.undrain", {"name": named_node(name)}))

    async def remove_node(self, name: NodeLike, /) -> Node:
        """Forget a node that is down; what may still run there is given up."""
        return from_json(Node, await self._asker.call("node.remove", {"name": named_node(name)}))

    async def invite_node(
        self, *, name: str | None = None, labels: Mapping[str, str] | None = None, valid: DurationLike = "15m"
    ) -> Invitation:
        """Make a join token for one node."""
        body = {"node_name": name, "labels": dict(labels or {}), "valid_seconds": seconds(valid)}
        return from_json(Invitation, await self._asker.call("node.invite", body))

    async def wait_for_nodes(self, count: int, /, *, timeout: DurationLike | None = None) -> tuple[Node, ...]:
        """Wait until so many nodes may be given work, and return them.

        Raises:
            WaitTimeout: Time ran out.

        """
        limit = optional_seconds(timeout)
        deadline = float("inf") if limit is None else self._env.monotonic() + limit
        after: str | None = None
        while True:
            hold = min(NODES_HOLD_SECONDS, max(0.0, deadline - self._env.monotonic()))
            try:
                page = await self._asker.call(
                    "node.list", {"limit": 1, "after": after, "wait": hold if after else None}
                )
            except HistoryGone:
                after = None
                continue
            after = page["revision"]
            ready = tuple(node for node in await self.nodes() if node.schedulable)
            if len(ready) >= count:
                return ready
            if self._env.monotonic() >= deadline:
                raise WaitTimeout(f"{len(ready)} of {count} nodes are ready", result=ready)

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
            follow: Whether to go on as output comes: of an allocation until its tasks have ended, of a job until it is
                over, with the copies that come meanwhile.
            stream: Only this stream.
            tail: Only so many lines of each at the start.
            since: Only what was written within this time.

        Raises:
            NotFound: On entry: there is neither such a job nor such an allocation.
            Unavailable: On entry or later: the node with the logs is away.

        """
        options: dict[str, Any] = {"task": task, "follow": follow, "stream": stream, "tail": tail}
        if since is not None:
            options["since"] = self._env.now() - seconds(since)
        return Stream(partial(self._open_logs, target, options), _log_line)

    def events(
        self,
        *,
        after: Revision | None = None,
        job: JobLike | None = None,
        node: NodeLike | None = None,
        types: Sequence[str] = (),
        follow: bool = True,
    ) -> Stream[Event]:
        """Stream what happens in the namespace and to nodes; each event has the revision to resume after.

        Args:
            after: Only what happened after this revision; None is all that is remembered.
            job: Only what is about this job.
            node: Only what is about this node; a text is its name.
            types: Only events of these types.
            follow: Whether to go on as things happen.

        Raises:
            HistoryGone: On entry: the revision is of an ended term, or was pruned.

        """
        body: dict[str, Any] = {"follow": follow, "types": ",".join(types) or None, "namespace": self.namespace}
        body["after"] = None if after is None else str(after)
        body["node"] = None if node is None else named_node(node)
        if job is not None:
            named = named_job(job, self.namespace)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        return Stream(partial(self._asker.stream, "event.stream", body), _event)

    async def status(self) -> SystemStatus:
        """Return the state of the control plane itself."""
        return from_json(SystemStatus, await self._asker.call("system.status", {}))

    def _spec(self, job: Job) -> dict[str, Any]:
        placed = placed_in(job, self.namespace)
        return {"job": to_json(placed), "namespace": placed.namespace}

    @asynccontextmanager
    async def _open_logs(
        self, target: JobLike | AllocationLike, options: Mapping[str, Any]
    ) -> AsyncGenerator[ByteStream, None]:
        def of_allocation(named: AllocationLike) -> AbstractAsyncContextManager[ByteStream]:
            return self._asker.stream("allocation.logs", {**named_allocation(named, self.namespace), **options})

        async with AsyncExitStack() as stack:
            if isinstance(target, Allocation):
                yield await stack.enter_async_context(of_allocation(target))
                return
            of_job = self._asker.stream("job.logs", {**named_job(target, self.namespace), **options})
            try:
                opened = await stack.enter_async_context(of_job)
            except NotFound as no_job:
                if not isinstance(target, str) or no_job.kind != "job":
                    raise
                try:
                    opened = await stack.enter_async_context(of_allocation(target))
                except NotFound as neither:
                    raise (no_job if neither.kind == "allocation" else neither) from None
            yield opened


def _ignore(_: JobResult) -> None:
    """Do nothing."""


def _log_line(line: bytes) -> LogLine:
    return from_json(LogLine, loads(line))


def _event(line: bytes) -> Event:
    return from_json(Event, loads(line))
