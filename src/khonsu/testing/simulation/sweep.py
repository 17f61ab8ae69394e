"""Running many seeds, several at a time."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from functools import partial

from khonsu.testing.simulation.runners import RunnerName
from khonsu.testing.simulation.world import Outcome, World


def outcomes(runs: Sequence[tuple[int, RunnerName]], seconds: float, processes: int) -> Iterator[Outcome]:
    """Yield how runs went, in their order.

    Args:
        runs: Seeds, and on which event loop.
        seconds: How long each is, on the virtual clock.
        processes: How many run at a time, each in a process of its own.

    """
    if processes == 1:
        yield from map(partial(_run, seconds), runs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(partial(_run, seconds), runs)


def _run(seconds: float, run: tuple[int, RunnerName]) -> Outcome:
    logging.disable(logging.CRITICAL)
    seed, runner = run
    return World(seed, runner=runner, seconds=seconds).run()
