"""Running many seeds, several at a time."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import signal
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Final

from khonsu.testing.simulation.oracle import Violation
from khonsu.testing.simulation.runners import RunnerName
from khonsu.testing.simulation.trace import Trace
from khonsu.testing.simulation.world import Outcome, World

RUNS_PER_PROCESS: Final = 50
"""A process makes way for a fresh one after so many runs."""


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
    # Whoever interrupts it from the keyboard means this process, which ends the others.
    ignore = (signal.signal, (signal.SIGINT, signal.SIG_IGN))
    with multiprocessing.get_context("spawn").Pool(processes, *ignore, maxtasksperchild=RUNS_PER_PROCESS) as pool:
        yield from pool.imap(partial(_run, seconds), runs)


def _run(seconds: float, run: tuple[int, RunnerName]) -> Outcome:
    logging.disable(logging.CRITICAL)
    seed, runner = run
    outcome = run_one(seed, runner, seconds)
    gc.collect()  # a world is full of cycles, and nothing is collected while it runs
    return outcome


def run_one(
    seed: int,
    runner: RunnerName,
    seconds: float,
    *,
    only: Collection[int] | None = None,
    trace: Trace | None = None,
) -> Outcome:
    """Run a seed; a world that breaks down as a whole breaks a promise, too."""
    world = World(seed, runner=runner, seconds=seconds, only=only, trace=trace)
    try:
        return world.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other seeds are to run
        violation = world.violation or Violation("P0", f"the world broke down: {type(error).__name__}: {error}")
        return Outcome(seed=seed, runner=runner, seconds=0.0, digest="", events=0, violation=violation)
