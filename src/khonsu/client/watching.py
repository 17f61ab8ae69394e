"""What a client reads as it comes: logs and events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

from khonsu.abc.transport import ByteStream
from khonsu.client.asking import Asking
from khonsu.client.stream import Stream
from khonsu.client.targets import AllocationLike, JobLike, NodeLike, named_allocation, named_job, named_node
from khonsu.core.codec import from_json, loads
from khonsu.core.protocol import LogLine
from khonsu.core.records import Allocation, Event
from khonsu.core.revision import Revision
from khonsu.core.units import DurationLike, seconds
from khonsu.errors import NotFound

LogStream: TypeAlias = Literal["both", "stdout", "stderr"]


class StreamMethods(Asking):
    """The methods of a client that return streams."""

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
        after: Revision | Event | str | None = None,
        job: JobLike | None = None,
        node: NodeLike | None = None,
        types: Sequence[str] = (),
        follow: bool = True,
    ) -> Stream[Event]:
        """Stream what happens in the namespace and to nodes; each event is one to resume after.

        Args:
            after: Only what happened after this revision, or after this event or that of an id; None is all that is
                remembered. Several events may have one revision: after a stream that was cut, the event says where.
            job: Only what is about this job.
            node: Only what is about this node; a text is its name.
            types: Only events of these types.
            follow: Whether to go on as things happen.

        Raises:
            HistoryGone: On entry: the revision is of an ended term, or it or the event was pruned. Later: you read so
                slowly that what comes next was.

        """
        body: dict[str, Any] = {"follow": follow, "types": ",".join(types) or None, "namespace": self.namespace}
        body["after"] = None if after is None else after.id if isinstance(after, Event) else str(after)
        body["node"] = None if node is None else named_node(node)
        if job is not None:
            named = named_job(job, self.namespace)
            body |= {"namespace": named["namespace"], "job": named["name"]}
        return Stream(partial(self._asker.stream, "event.stream", body), _event)

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


def _log_line(line: bytes) -> LogLine:
    return from_json(LogLine, loads(line))


def _event(line: bytes) -> Event:
    return from_json(Event, loads(line))
