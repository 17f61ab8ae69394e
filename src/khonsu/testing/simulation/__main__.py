"""Run seeds of the simulation: one of them with all that happened, or many, one after the other, in two processes."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection
from functools import partial
from itertools import product
from typing import Final

from khonsu.testing.simulation.coverage import Met
from khonsu.testing.simulation.faults import FAULTS
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from khonsu.testing.simulation.shrink import shrink
from khonsu.testing.simulation.sweep import outcomes, run_one
from khonsu.testing.simulation.trace import Trace
from khonsu.testing.simulation.world import SECONDS, Outcome

PROGRESS_SECONDS: Final = 5.0
SHRUNK_MAX: Final = 5
"""So many of the seeds that fail are shrunk; the others are told as they are."""
MET_RUNS_MIN: Final = 100
"""With fewer runs it says nothing that some faults and operations never met."""


def main() -> int:
    """Run what the arguments say; return 1 if a seed broke a promise, 130 if it was interrupted, and 0 else."""
    parser = argparse.ArgumentParser(prog="python -m khonsu.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed of many")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--runner", choices=sorted(RUNNERS), help="the event loop; both for many seeds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a run is, in virtual seconds")
    parser.add_argument("--faults", type=_numbers, help="the numbers of the faults that happen, as in 3,7; or none")
    parser.add_argument("--trace", action="store_true", help="tell what happens, line by line")
    parser.add_argument("--shrink", action="store_true", help="find the fewest faults with which the seed fails")
    parser.add_argument("--digests", action="store_true", help="print the digest of each run, and nothing else")
    parser.add_argument("--processes", type=int, default=2, help="how many seeds run at a time")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        rerun = partial(run_one, options.seed, options.runner or "trio", options.seconds)
        return _one(rerun, options.faults, tell=options.trace, shrunk=options.shrink)
    runners: list[RunnerName] = [options.runner] if options.runner else list(RUNNERS)
    seeds = range(options.first, options.first + options.seeds)
    runs = [(seed, runner) for seed, runner in product(seeds, runners)]
    if options.digests:
        for outcome in outcomes(runs, options.seconds, options.processes):
            print(outcome.seed, outcome.runner, outcome.events, outcome.digest)
        return 0
    return Sweep(seeds, runs, options.seconds, options.processes).run()


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(int(part) for part in text.split(","))


def _one(rerun: partial[Outcome], faults: Collection[int] | None, *, tell: bool, shrunk: bool) -> int:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    outcome = rerun(only=faults, trace=Trace(tell=print if tell else None))
    print(f"seed {outcome.seed} on {outcome.runner}: {outcome.events} events, digest {outcome.digest}")
    if outcome.violation is None:
        return 0
    print(outcome.violation)
    if shrunk:
        print(_shrunk(outcome))
    return 1


def _shrunk(outcome: Outcome) -> str:
    """Return how few faults it takes, and the command for it."""
    rerun = partial(run_one, outcome.seed, outcome.runner, outcome.asked_seconds)
    fewest = shrink(outcome, lambda only: rerun(only=only))
    return f"    with {len(fewest.happened)} of its {len(outcome.happened)} faults: {fewest.command}"


class Sweep:
    """Many seeds, and what is told of them.

    Args:
        seeds: The seeds.
        runs: Each of them, on each event loop.
        seconds: How long a run is, on the virtual clock.
        processes: How many run at a time.

    """

    def __init__(self, seeds: range, runs: list[tuple[int, RunnerName]], seconds: float, processes: int) -> None:
        """Begin with none."""
        self._seeds = seeds
        self._runs = runs
        self._seconds = seconds
        self._processes = processes
        self._failed: list[Outcome] = []
        self._count = 0
        self._met = Met(tuple(fault.__name__ for fault in FAULTS))
        self._promises: Counter[str] = Counter()

    def run(self) -> int:
        """Run them, and tell how it goes: what fails at once, and where it stands every few seconds."""
        began = shown = time.monotonic()
        try:
            for outcome in outcomes(self._runs, self._seconds, self._processes):
                self._take(outcome)
                if time.monotonic() - shown > PROGRESS_SECONDS:
                    shown = time.monotonic()
                    self._tell(f"seed {outcome.seed}: {self._stands()}")
        except KeyboardInterrupt:
            self._tell(f"\ninterrupted: {self._stands()}\nit goes on with: {self._command()}")
            return 130
        spent = time.monotonic() - began
        rate = self._count * self._seconds / spent / self._processes
        self._tell(f"{self._stands()}, in {spent:.0f} s, {rate:.0f} times real time on each core")
        self._tell_met()
        return int(bool(self._failed))

    def _take(self, outcome: Outcome) -> None:
        self._count += 1
        self._met.add(outcome.pairs, outcome.operations)
        if outcome.violation is None:
            return
        self._failed.append(outcome)
        self._promises[outcome.violation.promise] += 1
        self._tell(f"seed {outcome.seed} on {outcome.runner}: {outcome.violation}")
        short = len(self._failed) <= SHRUNK_MAX
        self._tell(_shrunk(outcome) if short else f"    {outcome.command}")

    def _stands(self) -> str:
        failed = ", ".join(f"{count} of {promise}" for promise, count in sorted(self._promises.items()))
        return f"{self._count} of {len(self._runs)} runs, {len(self._failed)} failed{f' ({failed})' if failed else ''}"

    def _command(self) -> str:
        """Return the command that goes on where it stands."""
        following = self._runs[self._count][0] if self._count < len(self._runs) else self._seeds.stop
        return f"make simulate FROM={following} SEEDS={self._seeds.stop - following}"

    def _tell_met(self) -> None:
        """Tell which faults and operations never met."""
        never = self._met.never
        total = len(list(self._met.all))
        self._tell(f"{total - len(never)} of {total} pairs of a fault and an operation met: {self._met.share:.1%}")
        if self._count < MET_RUNS_MIN:
            return
        for fault in self._met.faults:
            missing = [operation for name, operation in never if name == fault]
            if missing:
                self._tell(f"    {fault} never met {', '.join(missing)}")

    def _tell(self, text: str) -> None:
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
