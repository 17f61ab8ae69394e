from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.core.job import Job
from khonsu.core.policies import Disconnect
from khonsu.testing import FakeConfig, World
from khonsu.testing.simulation.trace import Trace

if TYPE_CHECKING:
    from khonsu.testing.simulation.runners import RunnerName

REGRESSIONS: tuple[tuple[int, RunnerName, str], ...] = ()
"""Seeds of the usual world that broke a promise once, and which it was."""


@pytest.mark.parametrize(("seed", "runner", "promise"), REGRESSIONS)
def test_what_was_broken_once_stays_mended(seed: int, runner: RunnerName, promise: str) -> None:
    """A seed that broke a promise keeps them all."""
    assert World(seed, runner=runner).run().violation is None, promise


def test_contact_is_not_lost_between_two_requests() -> None:
    """A copy that is to stop soon without contact runs on while the lease is renewed less often than that (L1)."""
    disconnect = Disconnect(stop_after=1.0)
    job = Job.single("strict", FakeConfig(), driver="fake", disconnect=disconnect)
    trace = Trace(keep=True)
    outcome = World(1, agents=1, jobs=[job], seconds=40, faults=(), lively=False, trace=trace).run()
    assert outcome.violation is None
    assert sum("starts: strict" in line for line in trace.lines) == 1
