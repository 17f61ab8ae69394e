from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import pytest

from khonsu.core.job import Job
from khonsu.core.records import Allocation, Node
from khonsu.core.states import AllocationStatus, NodeStatus
from khonsu.testing import FakeConfig, World
from khonsu.testing.simulation.oracle import Invariant
from khonsu.testing.simulation.programs import CONTROL
from khonsu.testing.simulation.stories import Step
from khonsu.testing.simulation.workload import Workload
from tests.effort import Effort

if TYPE_CHECKING:
    from khonsu.testing.simulation.oracle import Moves, Process

AGENTS: Final = {Effort.USUAL: 12, Effort.FULL: 1000}
COPIES: Final = 20
GOES_AT: Final = 20.0
AWAY_SECONDS: Final = 600.0
RETURN_SECONDS: Final = 30.0
SECONDS: Final = GOES_AT + AWAY_SECONDS + RETURN_SECONDS


class NobodyIsLost(Invariant):
    """No node is marked down, no copy is unknown or lost, and no process ends."""

    promise = "S7"

    def committed(self, moves: Moves) -> None:
        """Look at each node and each copy."""
        for _, after in moves:
            if isinstance(after, Node) and after.status is NodeStatus.DOWN:
                self.broken(f"{after.name} is down")
            if isinstance(after, Allocation) and after.status in (AllocationStatus.UNKNOWN, AllocationStatus.LOST):
                self.broken(f"{after.id} is {after.status}")

    def ended(self, process: Process, how: str) -> None:
        """Look at a process."""
        self.broken(f"{process.process.key} ends: {how}")

    def finished(self) -> None:
        """Count."""
        nodes = len(self.oracle.tables["node"])
        if len(self.oracle.processes) != nodes + COPIES:
            self.broken(f"{len(self.oracle.processes)} processes run on {nodes} nodes")


class Away(World):
    """A world whose control plane is away for ten minutes."""

    def begin(self) -> None:
        """Have it go and come back."""
        self._group.start_soon(self._go)

    async def _go(self) -> None:
        await anyio.sleep(GOES_AT)
        self.hosts[CONTROL].power_cut()
        await anyio.sleep(AWAY_SECONDS)
        self.start(self.hosts[CONTROL])


@pytest.mark.costly
@pytest.mark.timeout(600)
def test_a_control_plane_that_was_away_for_ten_minutes_loses_nobody(effort: Effort) -> None:
    """All agents come back to it, nobody is marked down, and every task runs on (S5, S7)."""
    everywhere = Job.single("everywhere", FakeConfig(), driver="fake", type="system")
    web = Job.single("web", FakeConfig(), driver="fake", count=COPIES)
    stories = [(Step(at=GOES_AT / 2, verb="submit", job=job),) for job in (everywhere, web)]
    world = Away(
        1,
        agents=AGENTS[effort],
        jobs=Workload(submit_seconds=1.0, seconds=GOES_AT, stories=stories),
        seconds=SECONDS,
        faults=(),
        invariants=(NobodyIsLost,),
        lively=False,
    )
    assert world.run().violation is None
    assert len(world.oracle.tables["node"]) == AGENTS[effort]
