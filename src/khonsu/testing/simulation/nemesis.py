"""The nemesis: lets faults happen, some at once, and ends them all before what is wanted must have been reached."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from itertools import count
from typing import TYPE_CHECKING, Final

import anyio

from khonsu.testing.simulation.fault import Fault

if TYPE_CHECKING:
    from khonsu.testing.simulation.world import World

PAUSES_SECONDS: Final = (3.0, 8.0, 20.0)
"""How long it is on average until the next fault; a seed has one of these."""


class Nemesis:
    """Lets faults happen.

    Args:
        world: Where.
        faults: Which there are.
        chance: Which of them, when and for how long.
        only: The numbers of those that happen, counted from 1; the others are left out, and nothing else changes.

    """

    def __init__(
        self,
        world: World,
        faults: Sequence[type[Fault]],
        chance: random.Random,
        only: Collection[int] | None = None,
    ) -> None:
        """Draw what this seed has."""
        self._world = world
        self._chance = chance
        self._only = only
        self.faults = [fault for fault in faults if chance.random() < fault.share]
        self.pause_seconds = chance.choice(PAUSES_SECONDS)
        self.happened: list[int] = []
        """The numbers of those that have begun."""

    async def run(self, seconds: float) -> None:
        """Let faults happen for so long; when it returns, all are over."""
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(seconds):
                for number in count(1) if self.faults else ():
                    await anyio.sleep(self._chance.expovariate(1.0 / self.pause_seconds))
                    kind = self._chance.choice(self.faults)
                    if self._only is None or number in self._only:
                        # From a stream of its own: what one draws is the same whether another happens or not.
                        fault = kind(self._world, self._world.chance(f"fault/{number}"))
                        group.start_soon(self._let, number, fault)
            group.cancel_scope.cancel()

    async def _let(self, number: int, fault: Fault) -> None:
        seconds = fault.chance.choice(fault.seconds)
        self.happened.append(number)
        self._world.note("nemesis", f"fault {number}: {fault} begins, for {seconds:g} s")
        self._world.sights.fault_began(number, fault)
        self._world.excused |= fault.excuses
        fault.begin()
        try:
            await anyio.sleep(seconds)
        finally:
            self._world.note("nemesis", f"fault {number}: {fault} ends")
            fault.end()
            self._world.sights.fault_ended(number)
