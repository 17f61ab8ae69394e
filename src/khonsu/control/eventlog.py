"""The event log: what happened, from a revision on, for as long as the caller stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from attrs import frozen

from khonsu.abc.store import View
from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.state import State
from khonsu.control.streams import CHUNKS_BUFFERED, DownStream
from khonsu.core.codec import dumps
from khonsu.core.records import Event, Record, key_of
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import KhonsuError
from khonsu.scopes import bare_task_group

ROWS_PER_READ = 500


@frozen
class _Wanted:
    """Which events a caller wants."""

    namespace: str | None
    job: str | None
    node: str | None
    types: frozenset[str]
    follow: bool

    def matches(self, event: Event) -> bool:
        """Return whether an event is among them."""
        return (
            (self.namespace is None or event.namespace in (None, self.namespace))
            and (self.job is None or event.job == self.job)
            and (self.node is None or event.node == self.node)
            and (not self.types or event.type in self.types)
        )


class EventLog:
    """Serves `event.stream`: one `Event` as JSON per line."""

    def __init__(self, state: State) -> None:
        """Read a state's events."""
        self._state = state

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncGenerator[ByteStream, None]:
        """Serve `event.stream`.

        Raises:
            HistoryGone: `after` is not of this history.

        """
        types = call.text("types", "-")
        wanted = _Wanted(
            call.optional_text("namespace"),
            call.optional_text("job"),
            call.optional_text("node"),
            frozenset() if types == "-" else frozenset(types.split(",")),
            call.flag("follow"),
        )
        after = call.after(self._state.durable) or ZERO
        send, receive = anyio.create_memory_object_stream[bytes](CHUNKS_BUFFERED)
        async with receive, bare_task_group() as tasks:
            stream = DownStream(receive)
            tasks.start_soon(self._feed, send, stream, wanted, after)
            yield stream
            tasks.cancel_scope.cancel()

    async def _feed(
        self, send: MemoryObjectSendStream[bytes], stream: DownStream, wanted: _Wanted, after: Revision
    ) -> None:
        async with send:
            try:
                await self._send_all(send, wanted, after)
            except KhonsuError as error:
                stream.error = error

    async def _send_all(self, send: MemoryObjectSendStream[bytes], wanted: _Wanted, after: Revision) -> None:
        last: str | None = None
        while True:
            durable = self._state.durable
            while True:
                page = await self._state.read(partial(_page, after=last))
                for event in page:
                    if isinstance(event, Event) and event.revision > after and wanted.matches(event):
                        await send.send(dumps(event).encode() + b"\n")
                if page:
                    last = key_of(page[-1])
                if len(page) < ROWS_PER_READ:
                    break
            if not wanted.follow:
                return
            await self._state.wait_until(partial(self._state.newer, durable, "events"), "events")


def _page(view: View, *, after: str | None) -> Sequence[Record]:
    return view.find("event", after_key=after, limit=ROWS_PER_READ)
