"""What becomes of a control plane that is put back from a copy, and of an old one that comes back."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, ClassVar, Final

from khonsu.testing.simulation.fault import ControlFault

if TYPE_CHECKING:
    from khonsu.testing.simulation.host import Copy, Host
    from khonsu.testing.simulation.world import World

OLD: Final = "control-2"
"""Where an old control plane comes back."""


class RestoredFromBackup(ControlFault):
    """A copy of the control plane is made, and some time later its disk is put back to that, in a new term.

    What was acknowledged in between is lost, as it is with every backup.
    """

    share: ClassVar[float] = 0.15

    def __init__(self, world: World, chance: random.Random) -> None:
        """Have no copy yet."""
        super().__init__(world, chance)
        self.copy: Copy | None = None

    def begin(self) -> None:
        """Make a copy, if there is something to copy yet."""
        if self.world.reigning:
            self.copy = self.control.disk.copy()

    def end(self) -> None:
        """Put it back."""
        if self.copy is not None:
            self.world.put_back(self.copy)


class OldControlPlaneReturns(ControlFault):
    """The control plane is put back from a copy of a moment ago, in a new term; the one of before goes on elsewhere.

    Some agents get to the old one instead, once they have heard of the new term. (What an agent that was never told of
    a new term does for an old control plane, nobody can know: whoever puts a copy back has to end the old one first.)
    """

    share: ClassVar[float] = 0.15
    seconds: ClassVar[tuple[float, ...]] = (4.0, 12.0, 25.0)

    def __init__(self, world: World, chance: random.Random) -> None:
        """Choose who gets to the old one."""
        super().__init__(world, chance)
        self.old: Host | None = world.hosts.get(OLD)
        self.lost = [host.name for host in world.agents if chance.random() < 0.5]

    def begin(self) -> None:
        """Begin a new term, and let the old one go on."""
        network = self.world.network
        if self.old is None or not self.world.reigning or network.strays:
            self.old = None
            return
        copy = self.control.disk.copy()
        self.world.put_back(copy)
        self.old.put_back(copy, term=None)
        self.world.start(self.old)
        network.stray_term = self.world.term
        network.strays.update(dict.fromkeys(self.lost, self.old.name))

    def end(self) -> None:
        """End the old one for good."""
        if self.old is not None:
            self.world.network.strays.clear()
            self.old.switch_off()
