"""What a fault is: it picks its victim when it is made, lets something happen, and undoes it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final

from khonsu.testing.simulation.programs import CONTROL

if TYPE_CHECKING:
    from khonsu.testing.simulation.host import Host
    from khonsu.testing.simulation.world import World

SHARE: Final = 0.6
"""How likely a seed has a fault."""


class Fault(ABC):
    """Something that goes wrong for a while.

    Args:
        world: Where it happens.
        chance: Its victim, and whatever else is open.

    """

    seconds: ClassVar[tuple[float, ...]] = (0.5, 4.0, 12.0, 25.0)
    """How long it lasts: one of these."""
    share: ClassVar[float] = SHARE
    """How likely a seed has it."""
    excuses: ClassVar[frozenset[str]] = frozenset()
    """The promises that do not hold any more once it has happened: nobody could keep them."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose the victim."""
        self.world = world
        self.chance = chance
        self.control: Host = world.hosts[CONTROL]
        self.agent: Host = chance.choice(world.agents)

    def __str__(self) -> str:
        """Say what happens, and to whom."""
        return f"{type(self).__name__} of {self.agent.name}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the names of the hosts that it hurts, and not only the network between them."""
        return (self.agent.name,)

    @abstractmethod
    def begin(self) -> None:
        """Let it happen."""

    @abstractmethod
    def end(self) -> None:
        """Undo it."""


class ControlFault(Fault):
    """A fault of the control plane's machine, whichever agent was drawn."""

    def __str__(self) -> str:
        """Say what happens."""
        return f"{type(self).__name__} of the control plane"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return the control plane's name."""
        return (CONTROL,)


class HostFault(Fault):
    """A fault of one machine: that of the agent that was drawn, or the control plane's."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose whose."""
        super().__init__(world, chance)
        self.host: Host = chance.choice((self.agent, self.control))

    def __str__(self) -> str:
        """Say what happens, and where."""
        return f"{type(self).__name__} of {self.host.name}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return whose it is."""
        return (self.host.name,)


class NetworkFault(Fault):
    """A fault of the network: every host is well."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return none."""
        return ()
