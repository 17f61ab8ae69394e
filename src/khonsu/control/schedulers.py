"""The schedulers of a control plane: the built-in ones, and the user's, by name."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from khonsu.errors import PluginError

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler


class Schedulers:
    """Finds schedulers by name. The user's are given as they are and stand before built-in ones of the same name."""

    def __init__(self, own: Iterable[Scheduler] = ()) -> None:
        """Take the user's schedulers."""
        self._own: dict[str, Scheduler] = {}
        for scheduler in own:
            if scheduler.name in self._own:
                raise PluginError(f"two schedulers are named {scheduler.name}")
            self._own[scheduler.name] = scheduler
        self._made: dict[str, Scheduler] = {}
        self._turns: dict[str, anyio.Lock] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all that are known without looking at installed packages."""
        from khonsu.schedulers.registry import BUILT_IN

        return tuple(sorted({*self._own, *BUILT_IN}))

    def knows(self, name: str) -> bool:
        """Return whether a scheduler of this name can be found."""
        from khonsu.schedulers.registry import known

        return name in self._own or name in known()

    def get(self, name: str) -> Scheduler:
        """Return a scheduler.

        Raises:
            NotFound: There is none of this name; lists the known ones.

        """
        own = self._own.get(name) or self._made.get(name)
        if own is None:
            from khonsu.schedulers.registry import resolve

            own = self._made[name] = resolve(name)()
        return own

    @asynccontextmanager
    async def turn(self, scheduler: Scheduler) -> AsyncGenerator[None, None]:
        """Have a scheduler that learns plan and be told of the outcome before it plans again.

        One that does not may plan for several workers at once.
        """
        from khonsu.abc.scheduler import Scheduler

        if type(scheduler).observe is Scheduler.observe:
            yield
            return
        async with self._turns.setdefault(scheduler.name, anyio.Lock()):
            yield
