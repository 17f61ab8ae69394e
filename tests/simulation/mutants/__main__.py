"""Plant one bug after the other, and print how many seeds it takes to find each."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants.hunt import SEEDS_MAX, Found, hunt_all

SHARE_MIN: Final = 0.95


def main() -> int:
    """Hunt, print the table, and return whether too many got away."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="the bugs; all of them by default")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="how many seeds each has to be found in")
    parser.add_argument("--processes", type=int, default=2, help="how many hunts at a time")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    found: dict[str, Found] = {}
    for one in hunt_all([mutant.name for mutant in mutants], seeds=options.seeds, processes=options.processes):
        found[one.name] = one
        print(f"{len(found)} of {len(mutants)}: {_line(one)}", flush=True)
    print()
    print(f"{'bug':<68} {'runner':<8} {'seeds':>5}  invariant")
    for mutant in mutants:
        print(_line(found[mutant.name]))
        if found[mutant.name].violation is None and mutant.harmless:
            print(f"    harmless: {mutant.harmless}")
    caught = sum(one.violation is not None for one in found.values())
    harmless = sum(bool(mutant.harmless) and found[mutant.name].violation is None for mutant in mutants)
    share = caught / max(1, len(mutants) - harmless)
    print(f"\n{caught} of {len(mutants)} were found, {harmless} are harmless: {share:.0%}")
    return int(share < SHARE_MIN)


def _line(one: Found) -> str:
    if one.violation is None:
        return f"{one.name:<68} {'-':<8} {'-':>5}  not found"
    return f"{one.name:<68} {one.runner or '':<8} {one.seed:>5}  {one.violation.promise}"


if __name__ == "__main__":
    sys.exit(main())
