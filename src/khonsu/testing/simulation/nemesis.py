"""The nemesis: lets faults happen, some at once, and ends them all before what is wanted must have been reached."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import anyio

from khonsu.testing.simulation.faults import Fault

if TYPE_CHECKING:
    from khonsu.testing.simulation.world import World

SHARE: Final = 0.6
"""How likely a seed has a fault."""
PAUSES_SECONDS: Final = (3.0, 8.0, 20.0)
"""How long it is on average until the next fault; a seed has one of these."""


class Nemesis:
    """Lets faults happen.

    Args:
        world: Where.
        faults: Which there are.
        chance: Which of them, to whom, when and for how long.

    """

    def __init__(self, world: World, faults: Sequence[type[Fault]], chance: random.Random) -> None:
        """Draw what this seed has."""
        self._world = world
        self._chance = chance
        self.faults = [fault for fault in faults if chance.random() < SHARE]
        self.pause_seconds = chance.choice(PAUSES_SECONDS)

    async def run(self, seconds: float) -> None:
        """Let faults happen for so long; when it returns, all are over."""
        async with anyio.create_task_group() as group:
            with anyio.move_on_after(seconds):
                while self.faults:
                    await anyio.sleep(self._chance.expovariate(1.0 / self.pause_seconds))
                    fault = self._chance.choice(self.faults)(self._world, self._chance)
                    group.start_soon(self._let, fault, self._chance.choice(fault.seconds))
            group.cancel_scope.cancel()

    async def _let(self, fault: Fault, seconds: float) -> None:
        self._world.note("nemesis", f"{fault} begins, for {seconds:g} s")
        fault.begin()
        try:
            await anyio.sleep(seconds)
        finally:
            self._world.note("nemesis", f"{fault} ends")
            fault.end()
