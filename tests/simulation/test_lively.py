from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from khonsu.core.job import Job
from khonsu.core.policies import Disconnect
from khonsu.testing import FakeConfig, World
from khonsu.testing.simulation.faults import AgentDiskErrors, AgentPause, NetworkCut, RestoredFromBackup
from khonsu.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from khonsu.testing.simulation.fault import Fault
    from khonsu.testing.simulation.runners import RunnerName


def often(*kinds: type[Fault]) -> tuple[type[Fault], ...]:
    """Return faults that nearly every seed has."""
    return tuple(type(kind.__name__, (kind,), {"share": 0.9}) for kind in kinds)


SMALL: Final = {"agents": 2, "jobs": 4, "seconds": 80}
MIDDLE: Final = {"agents": 3, "jobs": 6, "seconds": 100}
REGRESSIONS: tuple[tuple[int, RunnerName, dict[str, Any], str], ...] = (
    # An agent whose disk failed when it had just joined ended with an error of the system, and its token was used up.
    (7, "trio", {**SMALL, "faults": (AgentDiskErrors,)}, "P0"),
    # A control plane that had stood still gave that time also to nodes that called as soon as it went on.
    (2088, "trio", {}, "L2"),
    # What one control plane did not know, and the next one did, ended in between, and nobody was told.
    (
        209,
        "trio",
        {**MIDDLE, "faults": often(AgentDiskErrors, RestoredFromBackup, NetworkCut, AgentPause)},
        "L1",
    ),
)
"""Seeds that broke a promise once, in which world, and which promise it was."""


@pytest.mark.parametrize(("seed", "runner", "world", "promise"), REGRESSIONS)
def test_what_was_broken_once_stays_mended(seed: int, runner: RunnerName, world: dict[str, Any], promise: str) -> None:
    """A seed that broke a promise keeps them all."""
    assert World(seed, runner=runner, **world).run().violation is None, promise


def test_contact_is_not_lost_between_two_requests() -> None:
    """A copy that is to stop soon without contact runs on while the lease is renewed less often than that (L1)."""
    disconnect = Disconnect(stop_after=1.0)
    job = Job.single("strict", FakeConfig(), driver="fake", disconnect=disconnect)
    trace = Trace(keep=True)
    outcome = World(1, agents=1, jobs=[job], seconds=40, faults=(), lively=False, trace=trace).run()
    assert outcome.violation is None
    assert sum("starts: strict" in line for line in trace.lines) == 1
