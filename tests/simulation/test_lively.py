from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.core.job import Job
from khonsu.core.policies import Disconnect
from khonsu.testing import FakeConfig, World
from khonsu.testing.simulation.faults import AgentDiskErrors
from khonsu.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from khonsu.testing.simulation.fault import Fault
    from khonsu.testing.simulation.runners import RunnerName

REGRESSIONS: tuple[tuple[int, RunnerName, tuple[type[Fault], ...], str], ...] = (
    # An agent whose disk failed when it had just joined ended with an error of the system, and its token was used up.
    (7, "trio", (AgentDiskErrors,), "P0"),
)
"""Seeds that broke a promise once, on a small world: what they had, and which promise it was."""


@pytest.mark.parametrize(("seed", "runner", "faults", "promise"), REGRESSIONS)
def test_what_was_broken_once_stays_mended(
    seed: int, runner: RunnerName, faults: tuple[type[Fault], ...], promise: str
) -> None:
    """A seed that broke a promise keeps them all."""
    assert World(seed, runner=runner, agents=2, jobs=4, seconds=80, faults=faults).run().violation is None, promise


def test_contact_is_not_lost_between_two_requests() -> None:
    """A copy that is to stop soon without contact runs on while the lease is renewed less often than that (L1)."""
    disconnect = Disconnect(stop_after=1.0)
    job = Job.single("strict", FakeConfig(), driver="fake", disconnect=disconnect)
    trace = Trace(keep=True)
    outcome = World(1, agents=1, jobs=[job], seconds=40, faults=(), lively=False, trace=trace).run()
    assert outcome.violation is None
    assert sum("starts: strict" in line for line in trace.lines) == 1
