"""What goes wrong with disks."""

from __future__ import annotations

from typing import ClassVar

from khonsu.testing.simulation.env import BLOCKING_SECONDS
from khonsu.testing.simulation.fault import ControlFault, Fault, HostFault


class SlowDisk(HostFault):
    """What blocks takes long on a machine."""

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


class AgentDiskErrors(Fault):
    """Some of what an agent waits for on its disk ends with an I/O error."""

    def begin(self) -> None:
        """Let some fail."""
        self.agent.disk.files.fails = self.chance.choice((0.02, 0.3, 1.0))

    def end(self) -> None:
        """Let none fail."""
        self.agent.disk.files.fails = 0.0


class AgentDiskFull(Fault):
    """An agent's disk is full."""

    def begin(self) -> None:
        """Fill it."""
        self.agent.disk.files.full = True

    def end(self) -> None:
        """Make room."""
        self.agent.disk.files.full = False


class AgentDiskLies(Fault):
    """An agent's disk only says that something is safe. What a power cut takes then, nobody can know."""

    share: ClassVar[float] = 0.1
    excuses: ClassVar[frozenset[str]] = frozenset({"S3", "S5", "S6"})

    def begin(self) -> None:
        """Lie, some of the time."""
        self.agent.disk.files.lies = self.chance.choice((0.1, 0.5))

    def end(self) -> None:
        """Be honest."""
        self.agent.disk.files.lies = 0.0


class ControlDiskLies(ControlFault):
    """The control plane's disk only says that something is safe. After a power cut even the file may be damaged."""

    share: ClassVar[float] = 0.05
    excuses: ClassVar[frozenset[str]] = frozenset(
        {"D1", "D2", "D3", "D4", "D5", "S2", "S3", "S4", "S5", "S6", "S7", "S8", "S9", "S10", "L1", "L2", "L3"}
    )

    def begin(self) -> None:
        """Lie, some of the time."""
        self.control.disk.databases.lies = self.chance.choice((0.1, 0.5))

    def end(self) -> None:
        """Be honest."""
        self.control.disk.databases.lies = 0.0
