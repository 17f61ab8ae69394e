"""The event log: what happened, from a revision on, for as long as the caller stays."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

from anyio.streams.memory import MemoryObjectSendStream
from attrs import frozen

from khonsu.abc.transport import ByteStream
from khonsu.control.calls import Call
from khonsu.control.pruner import EVENTS_PRUNED, EVENTS_PRUNED_KEY
from khonsu.control.state import State
from khonsu.control.streams import fed
from khonsu.core.codec import dumps
from khonsu.core.ids import parse_key
from khonsu.core.records import Event
from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone

ROWS_PER_READ = 500
FROM_THE_START = "Leave it out to see all that is remembered"


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
            HistoryGone: `after`, a revision or the id of an event, is not of this history, or events that came after it
                are forgotten.

        """
        types = call.text("types", "-")
        wanted = _Wanted(
            call.optional_text("namespace"),
            call.optional_text("job"),
            call.optional_text("node"),
            frozenset() if types == "-" else frozenset(types.split(",")),
            call.flag("follow"),
        )
        seen = call.optional_text("after")
        if seen is not None and "." not in seen:
            feed = partial(self._send_all, wanted, ZERO, await self._remembered(seen))
        else:
            after = call.after(self._state.durable)
            if after is not None:
                self._check_remembered(after)
            feed = partial(self._send_all, wanted, after or ZERO, None)
        async with fed(feed) as stream:
            yield stream

    async def _remembered(self, key: str) -> Event:
        """Return the event that a caller has seen last.

        A revision may have many events, and a stream may be cut between two of them: then only the event says where.
        They are forgotten in order, so that nothing is missing behind one that is remembered.
        """
        found = await self._state.read(lambda view: view.get("event", key))
        if not isinstance(found, Event):
            raise HistoryGone(f"event {key} is forgotten, or never was", hint=FROM_THE_START)
        return found

    def _check_remembered(self, after: Revision) -> None:
        pruned = self._state.tables.settings.get(EVENTS_PRUNED)
        if pruned is not None and after < (horizon := Revision.parse(str(pruned.value))):
            raise HistoryGone(
                f"events up to revision {horizon} are forgotten, and revision {after} is before that",
                hint=FROM_THE_START,
            )

    def _check_whole(self, after: Revision, last: Event | None) -> None:
        """Check that nothing is forgotten of what came after the last event that was seen."""
        pruned = self._state.tables.settings.get(EVENTS_PRUNED_KEY)
        if pruned is not None and last is not None and parse_key(last.id) < parse_key(str(pruned.value)):
            self._check_remembered(last.revision)
            raise HistoryGone(f"some events of revision {last.revision} are forgotten", hint=FROM_THE_START)
        if last is None and after != ZERO:
            self._check_remembered(after)

    async def _send_all(
        self, wanted: _Wanted, after: Revision, last: Event | None, send: MemoryObjectSendStream[bytes]
    ) -> None:
        """Send what came after a revision, and after the last event that was seen, if any.

        Raises:
            HistoryGone: The caller is so slow that what comes next is forgotten.

        """
        start = None if last is not None else await self._before(after)
        while True:
            durable = self._state.durable
            while True:
                page = await self._state.page("event", start if last is None else last.id, ROWS_PER_READ)
                # When it is read: what was forgotten meanwhile is missing from it.
                self._check_whole(after, last)
                for event in page:
                    assert isinstance(event, Event)
                    if event.revision > after and wanted.matches(event):
                        await send.send(dumps(event).encode() + b"\n")
                    last = event
                if len(page) < ROWS_PER_READ:
                    break
            if not wanted.follow:
                return
            await self._state.wait_until(partial(self._state.newer, durable, "events"), "events")

    async def _before(self, after: Revision) -> str | None:
        """Return a key not far before the events that came after a revision; None is before all.

        Keys and revisions grow together, so that it is found by halving.
        """
        if after.term != self._state.term:
            return None
        # The first event behind the older key did not come after the revision; that behind the newer one did.
        older, newer = 0, self._state.keys_given
        while newer - older > ROWS_PER_READ:
            middle = (older + newer) // 2
            found = await self._state.page("event", self._state.key_at(middle), 1)
            if found and isinstance(found[0], Event) and found[0].revision <= after:
                older = middle
            else:
                newer = middle
        return self._state.key_at(older)
