"""The event log: what happened, from a revision on, for as long as the caller stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from anyio.streams.memory import MemoryObjectSendStream
from attrs import frozen

from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.pruner import EVENTS_PRUNED
from khonsu.control.state import State
from khonsu.control.streams import fed
from khonsu.core.codec import dumps
from khonsu.core.records import Event, key_of
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone

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
            HistoryGone: `after` is not of this history, or events that came after it are forgotten.

        """
        types = call.text("types", "-")
        wanted = _Wanted(
            call.optional_text("namespace"),
            call.optional_text("job"),
            call.optional_text("node"),
            frozenset() if types == "-" else frozenset(types.split(",")),
            call.flag("follow"),
        )
        after = call.after(self._state.durable)
        if after is not None:
            self._check_remembered(after)
        async with fed(partial(self._send_all, wanted, after or ZERO)) as stream:
            yield stream

    def _check_remembered(self, after: Revision) -> None:
        pruned = self._state.tables.settings.get(EVENTS_PRUNED)
        if pruned is not None and after < (horizon := Revision.parse(str(pruned.value))):
            raise HistoryGone(
                f"events up to revision {horizon} are forgotten, and revision {after} is before that",
                hint="stream without `after` to see all that is remembered",
            )

    async def _send_all(self, wanted: _Wanted, after: Revision, send: MemoryObjectSendStream[bytes]) -> None:
        last: str | None = None
        while True:
            durable = self._state.durable
            while True:
                page = await self._state.page("event", last, ROWS_PER_READ)
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
