"""Shrinking a seed that fails: to the fewest of its faults with which it still breaks the same promise."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from khonsu.testing.simulation.world import Outcome

RUNS_MAX: Final = 60
"""After so many runs what was found by then is good enough."""

Rerun = Callable[[Collection[int]], Outcome]
"""Runs a seed again, with these of its faults only."""


def shrink(failed: Outcome, rerun: Rerun) -> Outcome:
    """Return how the seed fails with fewer faults, or as it was where it needs all of them.

    Faults are left out in ever smaller parts, as in delta debugging (Zeller and Hildebrandt, TSE 2002): halves first,
    and each one alone in the end. What a fault draws is its own, so that the others stay what they were.
    """
    best, left = failed, RUNS_MAX
    size = len(best.happened)
    while size and left:
        faults = best.happened
        for start in range(0, len(faults), size):
            if left:
                left -= 1
                part = faults[start : start + size]
                outcome = rerun([number for number in best.happened if number not in part])
                best = outcome if _fails_alike(outcome, failed) else best
        # One that seems to be needed may not be, once others are gone.
        size = size // 2 if size > 1 else int(len(best.happened) < len(faults))
    return best


def _fails_alike(outcome: Outcome, failed: Outcome) -> bool:
    if outcome.violation is None or failed.violation is None:
        return False
    return outcome.violation.promise == failed.violation.promise
