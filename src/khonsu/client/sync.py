"""The synchronous client: `Client` for scripts and notebooks, with a loop on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from khonsu.abc.transport import Transport
from khonsu.client.client import Client
from khonsu.client.jobs import Progress
from khonsu.client.portal import Portal
from khonsu.client.stream import Stream
from khonsu.client.targets import AllocationLike, JobLike, NodeLike
from khonsu.client.waiting import Until
from khonsu.client.watching import LogStream
from khonsu.core.job import Job
from khonsu.core.protocol import LogLine
from khonsu.core.records import Allocation, Event, JobVersion, Node
from khonsu.core.results import Explanation, Invitation, JobInfo, JobPlan, JobResult, Submission, SystemStatus
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.units import DurationLike
from khonsu.errors import KhonsuError

T = TypeVar("T")

THREAD = "khonsu-client"


class SyncStream(Iterator[T], Generic[T]):
    """A context manager and an iterator, as in `with client.logs("web") as lines: ...`.

    Errors of the request are raised on entry. Leaving the block ends the stream on both sides. It is entered once.
    """

    def __init__(self, portal: Portal, stream: Stream[T]) -> None:
        """Take what is read, and the loop on which it is read."""
        self._portal = portal
        self._stream = stream
        self._entered: AbstractContextManager[Stream[T]] | None = None

    def __enter__(self) -> Self:
        """Open the stream."""
        if self._entered is not None:
            raise KhonsuError("a stream is entered once", hint="Ask the client for another")
        self._entered = self._portal.entered(self._stream)
        self._entered.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream."""
        if self._entered is not None and not self._portal.is_closed:
            self._entered.__exit__(exc_type, exc, traceback)

    def __next__(self) -> T:
        """Return the next item, or end."""
        try:
            return self._portal.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None


class SyncClient:
    """`Client` without `await`: the same names and types, to be called from any thread.

    Used as a context manager it keeps its connection; otherwise each call makes its own. The thread ends with the
    block, with `close`, or with the interpreter. The arguments are those of `Client`, which also explains the methods.

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
    ) -> None:
        """Make a client; nothing is dialled yet."""
        self._client = Client(server, token=token, namespace=namespace, ca=ca)
        self._portal = Portal(THREAD)
        self._close: Callable[[], None] = self._portal.close

    @classmethod
    def on(cls, portal: Portal, client: Client) -> SyncClient:
        """Return the synchronous form of a client whose loop is somebody else's."""
        made = cls.__new__(cls)
        made._client, made._portal, made._close = client, portal, _nothing  # noqa: SLF001 - its own
        return made

    @property
    def namespace(self) -> str:
        """Return the namespace of everything that is named."""
        return self._client.namespace

    def __enter__(self) -> Self:
        """Keep a connection for the length of the block."""
        self._portal.enter(self._client)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the connection go, and end the thread."""
        self.close()

    def close(self) -> None:
        """End the thread; does nothing the second time."""
        self._close()

    def submit(
        self, job: Job, /, *, rerun: bool = False, expect_version: int | None = None, idempotency_key: str | None = None
    ) -> Submission:
        """Submit a job."""
        return self._portal.call(
            lambda: self._client.submit(
                job, rerun=rerun, expect_version=expect_version, idempotency_key=idempotency_key
            )
        )

    def wait(
        self,
        target: JobLike,
        /,
        *,
        timeout: DurationLike | None = None,
        placement_timeout: DurationLike = "10s",
        until: Until = "done",
        progress: Progress | None = None,
    ) -> JobResult:
        """Wait until a run of a job is done: a service when all copies are healthy, a batch job when it finished."""
        return self._portal.call(
            lambda: self._client.wait(
                target, timeout=timeout, placement_timeout=placement_timeout, until=until, progress=progress
            )
        )

    def run(self, job: Job, /, *, timeout: DurationLike | None = None) -> JobResult:
        """Submit a job, again if it is a finished batch job, and wait for it."""
        return self._portal.call(lambda: self._client.run(job, timeout=timeout))

    def plan(self, job: Job, /) -> JobPlan:
        """Return what submitting a job would change and where its copies would go; commits nothing."""
        return self._portal.call(lambda: self._client.plan(job))

    def explain(self, name: JobLike, /) -> Explanation:
        """Return why a job's copies are where they are, and why the others are nowhere."""
        return self._portal.call(lambda: self._client.explain(name))

    def job(self, name: JobLike, /) -> JobInfo:
        """Return a job as it stands, with its allocations and latest events."""
        return self._portal.call(lambda: self._client.job(name))

    def jobs(self) -> tuple[JobInfo, ...]:
        """Return the jobs of the namespace, by name."""
        return self._portal.call(self._client.jobs)

    def history(self, name: JobLike, /) -> tuple[JobVersion, ...]:
        """Return the versions of a job, the newest first."""
        return self._portal.call(lambda: self._client.history(name))

    def revert(self, name: JobLike, /, *, version: int) -> Submission:
        """Submit an earlier version's spec again, as a new version."""
        return self._portal.call(lambda: self._client.revert(name, version=version))

    def scale(self, name: JobLike, /, count: int, *, group: str | None = None) -> Submission:
        """Change the count of a group, as a new version; the group need not be named where there is only one."""
        return self._portal.call(lambda: self._client.scale(name, count, group=group))

    def stop(self, name: JobLike, /, *, purge: bool = False) -> JobInfo:
        """Stop a job; with `purge`, forget it as soon as its copies have ended."""
        return self._portal.call(lambda: self._client.stop(name, purge=purge))

    def allocations(self, *, job: JobLike | None = None, node: NodeLike | None = None) -> tuple[Allocation, ...]:
        """Return allocations, live and ended, of a job, of a node, or of the namespace."""
        return self._portal.call(lambda: self._client.allocations(job=job, node=node))

    def allocation(self, id: AllocationLike, /) -> Allocation:
        """Return an allocation, by its id or a prefix that no other has."""
        return self._portal.call(lambda: self._client.allocation(id))

    def stop_allocation(self, id: AllocationLike, /) -> Allocation:
        """Stop one copy; its slot is placed again."""
        return self._portal.call(lambda: self._client.stop_allocation(id))

    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes, by name."""
        return self._portal.call(self._client.nodes)

    def node(self, name: NodeLike, /) -> Node:
        """Return a node, by its name, its id or a prefix of that."""
        return self._portal.call(lambda: self._client.node(name))

    def drain_node(self, name: NodeLike, /, *, deadline: DurationLike = "10m") -> Node:
        """Move all work off a node; what is left at the deadline is stopped."""
        return self._portal.call(lambda: self._client.drain_node(name, deadline=deadline))

    def undrain_node(self, name: NodeLike, /) -> Node:
        """Give a node work again."""
        return self._portal.call(lambda: self._client.undrain_node(name))

    def remove_node(self, name: NodeLike, /) -> Node:
        """Forget a node that is down; what may still run there is given up."""
        return self._portal.call(lambda: self._client.remove_node(name))

    def invite_node(
        self, *, name: str | None = None, labels: Mapping[str, str] | None = None, valid: DurationLike = "15m"
    ) -> Invitation:
        """Make a join token for one node."""
        return self._portal.call(lambda: self._client.invite_node(name=name, labels=labels, valid=valid))

    def wait_for_nodes(self, count: int, /, *, timeout: DurationLike | None = None) -> tuple[Node, ...]:
        """Wait until so many nodes may be given work, and return them."""
        return self._portal.call(lambda: self._client.wait_for_nodes(count, timeout=timeout))

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
    ) -> SyncStream[LogLine]:
        """Stream the output of a job's copies or of one allocation."""
        return SyncStream(
            self._portal, self._client.logs(target, task=task, follow=follow, stream=stream, tail=tail, since=since)
        )

    def events(
        self,
        *,
        after: Revision | Event | str | None = None,
        job: JobLike | None = None,
        node: NodeLike | None = None,
        types: Sequence[str] = (),
        follow: bool = True,
    ) -> SyncStream[Event]:
        """Stream what happens in the namespace and to nodes; each event is one to resume after."""
        return SyncStream(
            self._portal, self._client.events(after=after, job=job, node=node, types=types, follow=follow)
        )

    def status(self) -> SystemStatus:
        """Return the state of the control plane itself."""
        return self._portal.call(self._client.status)


def _nothing() -> None:
    """Do nothing."""
