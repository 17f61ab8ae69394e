from __future__ import annotations

import os
import subprocess
import sys

import pytest

from khonsu.testing import World
from khonsu.testing.simulation.faults import (
    AgentCrash,
    AgentPause,
    AgentPowerCut,
    BadNetwork,
    ClockStep,
    ControlCrash,
    ControlPause,
    ControlPowerCut,
    DiskErrors,
    DiskFull,
    Fault,
    NetworkCut,
    OneWayCut,
    SlowDisk,
)
from khonsu.testing.simulation.runners import RUNNERS, RunnerName
from tests.effort import Effort

SEEDS = {Effort.USUAL: 2, Effort.FULL: 50}
SECONDS = 40


def begin(hash_seed: str, seeds: int) -> subprocess.Popen[str]:
    """Begin to print the digests of some seeds on both event loops, in a process of its own."""
    command = [sys.executable, "-m", "khonsu.testing.simulation", "--digests", "--processes", "1"]
    return subprocess.Popen(
        [*command, "--seeds", str(seeds), "--seconds", str(SECONDS)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.costly
@pytest.mark.timeout(600)
def test_a_seed_is_one_run(effort: Effort) -> None:
    """Seeds go the same way in two processes whose sets have other orders, on both event loops."""
    seeds = SEEDS[effort]
    with begin("1", seeds) as one, begin("2", seeds) as other:
        first, second = one.communicate()[0], other.communicate()[0]
    assert len(first.splitlines()) == seeds * len(RUNNERS)
    assert first == second


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_world_without_faults_keeps_all_promises(runner: RunnerName) -> None:
    """Where nothing goes wrong, all jobs reach what is wanted."""
    outcome = World(1, runner=runner, faults=()).run()
    assert (outcome.violation, outcome.faults) == (None, ())
    assert outcome.seconds == pytest.approx(120.0, abs=1.0)


FIRST = (NetworkCut, OneWayCut, BadNetwork, ControlPowerCut, AgentCrash, AgentPause, ClockStep)
"""The faults that there were when these seeds broke a promise."""


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.costly
def test_a_late_first_request_starts_nothing_twice(runner: RunnerName) -> None:
    """A first request that was doubled on its way, and came late, had all be lost that was begun since (S2)."""
    assert World(118, runner=runner, faults=FIRST).run().violation is None


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.costly
def test_a_clock_that_is_set_back_keeps_no_exclusive_slot_waiting(runner: RunnerName) -> None:
    """A control plane that starts a day before its records had slots wait until that day had come (S8, L1)."""
    assert World(447, runner=runner, faults=FIRST).run().violation is None


@pytest.mark.parametrize("seed", [2, 14])
@pytest.mark.costly
def test_a_disk_that_fails_again_and_again_ends_no_worker(seed: int) -> None:
    """To clear the frames of an error ended a worker that had been told of an earlier one, and waited (P0)."""
    faults = (*FIRST, ControlCrash, ControlPause, AgentPowerCut, SlowDisk, DiskErrors, DiskFull)
    assert World(seed, faults=faults).run().violation is None


@pytest.mark.costly
def test_a_hole_in_a_journal_is_no_damage() -> None:
    """A journal whose unsafe end had a hole after a power cut was set aside, and an attempt started twice (S3)."""
    faults = (*FIRST, ControlCrash, ControlPause, AgentPowerCut, SlowDisk, DiskErrors, DiskFull)
    assert World(87, runner="asyncio", faults=faults).run().violation is None


REGRESSIONS: tuple[tuple[int, RunnerName, tuple[type[Fault], ...], str], ...] = (
    # An agent that was silent for longer than its lease told nothing when it was back: its tasks were unknown for ever.
    (3, "trio", (NetworkCut,), "L1"),
    (8, "asyncio", (NetworkCut,), "L1"),
)
"""Seeds that broke a promise once, on a small world: what they had, and which promise it was."""


@pytest.mark.parametrize(("seed", "runner", "faults", "promise"), REGRESSIONS)
@pytest.mark.costly
def test_what_was_broken_once_stays_mended(
    seed: int, runner: RunnerName, faults: tuple[type[Fault], ...], promise: str
) -> None:
    """A seed that broke a promise keeps them all."""
    outcome = World(seed, runner=runner, agents=2, jobs=6, faults=faults).run()
    assert outcome.faults == tuple(fault.__name__ for fault in faults)
    assert outcome.violation is None, f"{promise}: {outcome.violation}"
