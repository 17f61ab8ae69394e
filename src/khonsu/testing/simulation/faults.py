"""What goes wrong. A fault is one small class: it picks its victim when it begins, and undoes itself when it ends.

Each seed draws which of them it has, and how often.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Final

from khonsu.abc.driver import TaskExit
from khonsu.agent.layout import Layout
from khonsu.testing.simulation.disk_faults import (
    AgentDiskErrors,
    AgentDiskFull,
    AgentDiskLies,
    ControlDiskLies,
    DiskErrors,
    DiskFull,
    SlowDisk,
)
from khonsu.testing.simulation.fault import ControlFault, Fault, HostFault, NetworkFault
from khonsu.testing.simulation.programs import CONTROL
from khonsu.testing.simulation.reigns import OldControlPlaneReturns, RestoredFromBackup

if TYPE_CHECKING:
    from khonsu.testing.simulation.world import World

LONG_SECONDS: Final = (0.5, 4.0, 12.0, 25.0, 45.0)
"""Some are long enough that what is exclusive is placed anew meanwhile."""

__all__ = [
    "FAULTS",
    "AddressChange",
    "AgentCrash",
    "AgentDiskErrors",
    "AgentDiskFull",
    "AgentDiskLies",
    "AgentPause",
    "AgentPowerCut",
    "BadNetwork",
    "ClockStep",
    "ControlCrash",
    "ControlCut",
    "ControlDiskLies",
    "ControlFault",
    "ControlPause",
    "ControlPowerCut",
    "DiskErrors",
    "DiskFull",
    "Fault",
    "HostFault",
    "JournalDamage",
    "NetworkCut",
    "NetworkFault",
    "OldControlPlaneReturns",
    "OneWayCut",
    "RestoredFromBackup",
    "SlowDisk",
    "TaskFails",
]


class NetworkCut(NetworkFault):
    """Nothing passes between an agent and the control plane."""

    seconds: ClassVar[tuple[float, ...]] = LONG_SECONDS

    def __init__(self, world: World, chance: random.Random) -> None:
        """Cut off the agent that was drawn."""
        super().__init__(world, chance)
        self.agents = [self.agent]

    def begin(self) -> None:
        """Cut all ways."""
        for agent in self.agents:
            self.world.network.cut(agent.name, CONTROL)
            self.world.network.cut(CONTROL, agent.name)

    def end(self) -> None:
        """Heal all ways."""
        for agent in self.agents:
            self.world.network.heal(agent.name, CONTROL)
            self.world.network.heal(CONTROL, agent.name)


class ControlCut(NetworkCut):
    """Nothing passes between the control plane and any agent, or all but one."""

    seconds: ClassVar[tuple[float, ...]] = NetworkFault.seconds

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose who is cut off."""
        super().__init__(world, chance)
        spared = chance.choice((None, self.agent))
        self.agents = [agent for agent in world.agents if agent is not spared]

    def __str__(self) -> str:
        """Say whom it is about."""
        return f"ControlCut from {', '.join(agent.name for agent in self.agents)}"


class OneWayCut(NetworkFault):
    """What an agent says arrives, and it hears nothing; or the other way round."""

    seconds: ClassVar[tuple[float, ...]] = LONG_SECONDS

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

    seconds: ClassVar[tuple[float, ...]] = LONG_SECONDS

    def begin(self) -> None:
        """Kill it."""
        self.agent.crash()

    def end(self) -> None:
        """Start it again."""
        self.world.start(self.agent)


class JournalDamage(AgentCrash):
    """An agent is killed, and something damages its journal before it starts again."""

    def begin(self) -> None:
        """Kill it, and change a bit somewhere before the last line, which may have been cut by a power cut as well."""
        super().begin()
        journal = Layout(self.agent.disk.files.root).journal
        data = bytearray(journal.read_bytes()) if journal.exists() else bytearray()
        end = data.rstrip(b"\n").rfind(b"\n")
        places = [place for place in range(end) if data[place : place + 1].isalnum()]
        if places:
            data[self.chance.choice(places)] ^= 1
            with journal.open("r+b") as file:
                file.write(data)
                file.flush()
                self.agent.disk.files.keep(file.fileno())  # else a power cut would mend it
                self.world.sights.damaged(self.agent.name)


class AgentPause(Fault):
    """An agent stands still, as by SIGSTOP; its tasks run on."""

    seconds: ClassVar[tuple[float, ...]] = LONG_SECONDS

    def begin(self) -> None:
        """Stop it."""
        self.agent.pause()

    def end(self) -> None:
        """Let it go on."""
        self.agent.resume()


class ClockStep(HostFault):
    """Somebody sets the wall clock of a machine."""

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose how far, and whose."""
        super().__init__(world, chance)
        self.step = chance.choice((-86_400.0, -60.0, 60.0, 86_400.0))

    def __str__(self) -> str:
        """Say how far."""
        return f"ClockStep of {self.host.name} by {self.step:g} s"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return none: what the wall clock says matters to nobody."""
        return ()

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
        self.echo_seconds = chance.choice((0.0, 3.0, 15.0))

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
        network.echo_seconds += sign * self.echo_seconds


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


class AddressChange(HostFault):
    """A machine gets another address: what is on its way to it or from it is lost, and it is reached again at once."""

    seconds: ClassVar[tuple[float, ...]] = (0.5,)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Return none: every host is well."""
        return ()

    def begin(self) -> None:
        """Change it."""
        self.world.network.move(self.host.name)

    def end(self) -> None:
        """Leave it: it stays reachable."""


class TaskFails(Fault):
    """A task ends that should not: it crashes, or is killed by somebody."""

    seconds: ClassVar[tuple[float, ...]] = (0.5,)

    def begin(self) -> None:
        """End one of those that run."""
        alive = self.agent.table.alive
        if alive:
            end = TaskExit(code=self.chance.choice((1, 139)))
            victim = self.chance.choice(alive)
            self.world.sights.struck.add(victim.key)
            self.agent.table.end(victim, self.agent.clock.monotonic(), end)

    def end(self) -> None:
        """Leave it: what ended is started again by those whose business it is."""


FAULTS: tuple[type[Fault], ...] = (
    NetworkCut,
    OneWayCut,
    BadNetwork,
    ControlPowerCut,
    AgentCrash,
    AgentPause,
    JournalDamage,
    ControlCut,
    ClockStep,
    ControlCrash,
    ControlPause,
    AgentPowerCut,
    SlowDisk,
    DiskErrors,
    DiskFull,
    AddressChange,
    TaskFails,
    AgentDiskErrors,
    AgentDiskFull,
    AgentDiskLies,
    ControlDiskLies,
    RestoredFromBackup,
    OldControlPlaneReturns,
)
