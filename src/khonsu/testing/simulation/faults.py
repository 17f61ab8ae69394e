"""What goes wrong. A fault is one small class: it picks its victim when it begins, and undoes itself when it ends.

Each seed draws which of them it has, and how often.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from khonsu.testing.simulation.env import BLOCKING_SECONDS
from khonsu.testing.simulation.programs import CONTROL

if TYPE_CHECKING:
    from khonsu.testing.simulation.host import Host
    from khonsu.testing.simulation.world import World


class Fault(ABC):
    """Something that goes wrong for a while.

    Args:
        world: Where it happens.
        chance: Its victim, and whatever else is open.

    """

    seconds: ClassVar[tuple[float, ...]] = (0.5, 4.0, 12.0, 25.0)
    """How long it lasts: one of these."""

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


class NetworkFault(Fault):
    """A fault of the network: every host is well."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return none."""
        return ()


class NetworkCut(NetworkFault):
    """Nothing passes between an agent and the control plane."""

    def begin(self) -> None:
        """Cut both ways."""
        self.world.network.cut(self.agent.name, CONTROL)
        self.world.network.cut(CONTROL, self.agent.name)

    def end(self) -> None:
        """Heal both ways."""
        self.world.network.heal(self.agent.name, CONTROL)
        self.world.network.heal(CONTROL, self.agent.name)


class OneWayCut(NetworkFault):
    """What an agent says arrives, and it hears nothing; or the other way round."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose the direction."""
        super().__init__(world, chance)
        ways = (self.agent.name, CONTROL), (CONTROL, self.agent.name)
        self.source, self.target = chance.choice(ways)

    def __str__(self) -> str:
        """Say which way is cut."""
        return f"OneWayCut from {self.source} to {self.target}"

    def begin(self) -> None:
        """Cut one way."""
        self.world.network.cut(self.source, self.target)

    def end(self) -> None:
        """Heal it."""
        self.world.network.heal(self.source, self.target)


class ControlPowerCut(ControlFault):
    """The control plane's machine loses power."""

    def begin(self) -> None:
        """Cut the power."""
        self.control.power_cut()

    def end(self) -> None:
        """Switch it on."""
        self.world.start(self.control)


class AgentCrash(Fault):
    """An agent is killed; its tasks run on."""

    def begin(self) -> None:
        """Kill it."""
        self.agent.crash()

    def end(self) -> None:
        """Start it again."""
        self.world.start(self.agent)


class AgentPause(Fault):
    """An agent stands still, as by SIGSTOP; its tasks run on."""

    def begin(self) -> None:
        """Stop it."""
        self.agent.pause()

    def end(self) -> None:
        """Let it go on."""
        self.agent.resume()


class ClockStep(Fault):
    """Somebody sets the wall clock of a machine."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose how far, and whose."""
        super().__init__(world, chance)
        self.host = chance.choice((self.agent, self.control))
        self.step = chance.choice((-86_400.0, -60.0, 60.0, 86_400.0))

    def __str__(self) -> str:
        """Say how far."""
        return f"ClockStep of {self.host.name} by {self.step:g} s"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return whose clock it is."""
        return (self.host.name,)

    def begin(self) -> None:
        """Set it."""
        self.host.clock.wall_offset += self.step

    def end(self) -> None:
        """Set it back."""
        self.host.clock.wall_offset -= self.step


class BadNetwork(NetworkFault):
    """Messages of everybody are late, lost, or doubled."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose how bad."""
        super().__init__(world, chance)
        self.lost = chance.choice((0.0, 0.05, 0.3))
        self.doubled = chance.choice((0.0, 0.1, 0.5))
        self.delay_seconds = chance.choice((0.0, 0.1, 0.5))

    def __str__(self) -> str:
        """Say how bad."""
        return f"BadNetwork: {self.lost:g} lost, {self.doubled:g} doubled, {self.delay_seconds:g} s later"

    def begin(self) -> None:
        """Make it worse."""
        self._add(1.0)

    def end(self) -> None:
        """Make it as it was."""
        self._add(-1.0)

    def _add(self, sign: float) -> None:
        network = self.world.network
        network.lost_requests += sign * self.lost / 2
        network.lost_answers += sign * self.lost / 2
        network.doubled += sign * self.doubled
        network.delay_seconds += sign * self.delay_seconds


class ControlCrash(ControlFault):
    """The control plane is killed; its disk stays as it is."""

    def begin(self) -> None:
        """Kill it."""
        self.control.crash()

    def end(self) -> None:
        """Start it again."""
        self.world.start(self.control)


class ControlPause(ControlFault):
    """The control plane stands still, as by SIGSTOP."""

    def begin(self) -> None:
        """Stop it."""
        self.control.pause()

    def end(self) -> None:
        """Let it go on."""
        self.control.resume()


class AgentPowerCut(Fault):
    """An agent's machine loses power, and its tasks with it."""

    def begin(self) -> None:
        """Cut the power."""
        self.agent.power_cut()

    def end(self) -> None:
        """Switch it on."""
        self.world.start(self.agent)


class SlowDisk(Fault):
    """What blocks takes long on a machine."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose whose."""
        super().__init__(world, chance)
        self.host = chance.choice((self.agent, self.control))

    def __str__(self) -> str:
        """Say whose."""
        return f"SlowDisk of {self.host.name}"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return whose disk it is."""
        return (self.host.name,)

    def begin(self) -> None:
        """Make it slow."""
        self.host.slow(self.chance.choice((0.05, 0.5, 2.0)))

    def end(self) -> None:
        """Make it as it was."""
        self.host.slow(BLOCKING_SECONDS)


class DiskErrors(ControlFault):
    """Some operations on the control plane's disk end with an I/O error."""

    def begin(self) -> None:
        """Let some fail."""
        self.control.disk.databases.fails = self.chance.choice((0.001, 0.02, 0.3))

    def end(self) -> None:
        """Let none fail."""
        self.control.disk.databases.fails = 0.0


class DiskFull(ControlFault):
    """The control plane's disk is full."""

    def begin(self) -> None:
        """Fill it."""
        self.control.disk.databases.full = True

    def end(self) -> None:
        """Make room."""
        self.control.disk.databases.full = False


FAULTS: tuple[type[Fault], ...] = (
    NetworkCut,
    OneWayCut,
    BadNetwork,
    ControlPowerCut,
    AgentCrash,
    AgentPause,
    ClockStep,
    ControlCrash,
    ControlPause,
    AgentPowerCut,
    SlowDisk,
    DiskErrors,
    DiskFull,
)
