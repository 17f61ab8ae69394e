"""Run seeds of the simulation: one of them with all that happened, or many, one after the other, in two processes."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from itertools import product

from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from khonsu.testing.simulation.sweep import outcomes
from khonsu.testing.simulation.trace import Trace
from khonsu.testing.simulation.world import SECONDS, Outcome, World

PROGRESS_SECONDS = 5.0


def main() -> int:
    """Run what the arguments say; return how many seeds broke a promise, at most 1."""
    parser = argparse.ArgumentParser(prog="python -m khonsu.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first seed of many")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds")
    parser.add_argument("--runner", choices=sorted(RUNNERS), help="the event loop; both for many seeds")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long a run is, in virtual seconds")
    parser.add_argument("--trace", action="store_true", help="tell what happens, line by line")
    parser.add_argument("--digests", action="store_true", help="print the digest of each run, and nothing else")
    parser.add_argument("--processes", type=int, default=2, help="how many seeds run at a time")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.seed is not None:
        return _one(options.seed, options.runner or "trio", options.seconds, tell=options.trace)
    runners: list[RunnerName] = [options.runner] if options.runner else list(RUNNERS)
    seeds = range(options.first, options.first + options.seeds)
    runs = [(seed, runner) for seed, runner in product(seeds, runners)]
    if options.digests:
        for outcome in outcomes(runs, options.seconds, options.processes):
            print(outcome.seed, outcome.runner, outcome.events, outcome.digest)
        return 0
    return _many(runs, options.seconds, options.processes)


def _one(seed: int, runner: RunnerName, seconds: float, *, tell: bool) -> int:
    outcome = World(seed, runner=runner, seconds=seconds, trace=Trace(tell=print if tell else None)).run()
    print(f"seed {seed} on {runner}: {outcome.events} events, digest {outcome.digest}")
    if outcome.violation is not None:
        print(outcome.violation)
    return int(outcome.violation is not None)


def _many(runs: list[tuple[int, RunnerName]], seconds: float, processes: int) -> int:
    began = shown = time.monotonic()
    failed: list[Outcome] = []
    count = 0
    for count, outcome in enumerate(outcomes(runs, seconds, processes), 1):
        if outcome.violation is not None:
            failed.append(outcome)
            print(f"seed {outcome.seed} on {outcome.runner}: {outcome.violation}\n    {outcome.command}", flush=True)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"{count} of {len(runs)} runs, seed {outcome.seed}, {len(failed)} failed", flush=True)
    spent = time.monotonic() - began
    rate = count * seconds / spent / processes
    print(f"{count} runs in {spent:.0f} s, {rate:.0f} times real time on each core: {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
