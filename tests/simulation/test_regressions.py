"""Seeds that broke a promise once; `mutants` has the bugs behind them, where they can be planted."""

from __future__ import annotations

import pytest

from khonsu.testing import World
from khonsu.testing.simulation.faults import ControlCut, Fault, JournalDamage
from khonsu.testing.simulation.runners import RunnerName

REGRESSIONS: tuple[tuple[int, RunnerName, tuple[type[Fault], ...], str], ...] = (
    # The agent that found the damage was not taken any more, and the one after it found a whole journal.
    (5, "trio", (JournalDamage, ControlCut), "S10"),
)
"""A seed, what it had, and which promise it broke."""


@pytest.mark.parametrize(
    ("seed", "runner", "faults", "promise"), REGRESSIONS, ids=[f"{one[3]}-{one[0]}-{one[1]}" for one in REGRESSIONS]
)
def test_a_seed_keeps_the_promise_that_it_broke(
    seed: int, runner: RunnerName, faults: tuple[type[Fault], ...], promise: str
) -> None:
    """And all others, too."""
    violation = World(seed, runner=runner, faults=faults).run().violation
    assert violation is None, f"{promise}: {violation}"
