"""Downloads on their way: made once however many want the same, and ended when nobody wants it any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from khonsu.artifacts.cache import CachedArtifact
from khonsu.artifacts.faults import fault
from khonsu.artifacts.incoming import Progress
from khonsu.artifacts.source import Wanted

Download: TypeAlias = Callable[[Wanted, Progress], Awaitable[CachedArtifact]]


class Flight:
    """One download, shared by those who wait for it."""

    def __init__(self, wanted: Wanted) -> None:
        """Describe what is fetched; `Flights` lets it begin."""
        self.wanted = wanted
        self.landed: CachedArtifact | None = None
        self.error: Exception | None = None
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.passengers: list[Progress] = []

    def progress(self, done: int, total: int | None) -> None:
        """Tell everybody who waits how far it is."""
        for tell in tuple(self.passengers):
            tell(done, total)


class Flights:
    """All downloads on their way, by what makes two of them the same one."""

    def __init__(self, tasks: TaskGroup, download: Download) -> None:
        """Take the task group they run in, and the function that makes one."""
        self._tasks = tasks
        self._download = download
        self._flights: dict[str, Flight] = {}

    @asynccontextmanager
    async def join(self, wanted: Wanted, progress: Progress) -> AsyncGenerator[Flight, None]:
        """Wait for a download to end, and let it begin if nobody did; yield it, with what came of it.

        What landed stays in the cache until the block ends. A download that nobody waits for is cancelled; who comes
        while it is being put away waits for that, since both would write the same file.
        """
        while (found := self._flights.get(wanted.key)) is not None and found.scope.cancel_called:
            await found.ended.wait()
        flight = found or self._begin(wanted)
        flight.passengers.append(progress)
        try:
            await flight.ended.wait()
            yield flight
        finally:
            flight.passengers.remove(progress)
            if not flight.passengers:
                flight.scope.cancel()
                if flight.landed is not None:
                    flight.landed.release()

    def _begin(self, wanted: Wanted) -> Flight:
        flight = self._flights[wanted.key] = Flight(wanted)
        self._tasks.start_soon(self._fly, flight, name=f"fetch {wanted.source.shown}")
        return flight

    async def _fly(self, flight: Flight) -> None:
        """Make a download and keep what comes of it for those who wait."""
        try:
            with flight.scope:
                flight.landed = await self._download(flight.wanted, flight.progress)
        except Exception as error:  # noqa: BLE001 - carried to those who wait
            # Whatever it is, it belongs to those who asked for it; others' tasks go on.
            flight.error = error
        finally:
            del self._flights[flight.wanted.key]
            if flight.landed is None and flight.error is None:
                flight.error = fault(flight.wanted.source.shown, "the download was stopped", retryable=True)
            if flight.landed is not None and not flight.passengers:
                flight.landed.release()
            flight.ended.set()
