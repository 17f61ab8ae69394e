"""The hunt: how many seeds it takes to find a planted bug, and which invariant catches it."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Final

from attrs import frozen

from khonsu.testing import World
from khonsu.testing.simulation.oracle import Violation
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants.planting import Mutant

SEEDS_MAX: Final = 100
"""A bug that takes more seeds than these is not found."""


@frozen(kw_only=True)
class Found:
    """What came of a hunt."""

    name: str
    seed: int = 0
    runner: RunnerName | None = None
    violation: Violation | None = None


def hunt(mutant: Mutant, *, seeds: int = SEEDS_MAX, first: int = 1) -> Found:
    """Run seed after seed on both event loops until one breaks a promise that it keeps without the bug."""
    for seed, runner in product(range(first, first + seeds), RUNNERS):
        with mutant.planted():
            violation = violated(seed, runner)
        if violation is not None and not _same(violated(seed, runner), violation):
            return Found(name=mutant.name, seed=seed, runner=runner, violation=violation)
    return Found(name=mutant.name)


def violated(seed: int, runner: RunnerName) -> Violation | None:
    """Return what a seed breaks; a world that breaks down as a whole counts, too."""
    try:
        return World(seed, runner=runner).run().violation
    except Exception as error:  # noqa: BLE001 - a bug may break anything
        return Violation("P0", f"{type(error).__name__}: {error}")


def _same(one: Violation | None, other: Violation) -> bool:
    return one is not None and one.promise == other.promise


def hunt_all(names: Sequence[str], *, seeds: int, processes: int) -> Iterator[Found]:
    """Yield what came of the hunts, as they end."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(partial(_hunt_one, seeds), names)


def _hunt_one(seeds: int, name: str) -> Found:
    logging.disable(logging.CRITICAL)
    # A coroutine that is torn in two by a bug has much to say when it is collected.
    sys.unraisablehook = lambda _: None
    return hunt(next(mutant for mutant in MUTANTS if mutant.name == name), seeds=seeds)
