from __future__ import annotations

import pytest

from khonsu.testing import World
from khonsu.testing.simulation.oracle import Violation
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.mutants.hunt import Found
from tests.simulation.mutants.planting import Mutant

NAMED = {mutant.name: mutant for mutant in MUTANTS}
SAMPLE = {
    "look_comes_later": "D3",
    "ends_are_not_looked_at": "D3",
    "status_goes_back": "S4",
    "every_answer_is_complete": "S5",
    "tells_another_end": "S5",
    "two_minds_of_what_fits": "L3",
}
"""Bugs that break a promise where nothing goes wrong, and which; `make mutants` hunts all of them."""


@pytest.mark.parametrize(("name", "promise"), SAMPLE.items())
def test_a_planted_bug_is_found(name: str, promise: str) -> None:
    """A small world breaks the promise that the bug is about."""
    with NAMED[name].planted():
        violation = World(1, agents=3, jobs=10, seconds=60.0, faults=()).run().violation
    assert violation is not None
    assert violation.promise == promise


def test_there_are_many() -> None:
    """At least 25, some of them pairs, each with a name of its own and a line that says what is wrong."""
    assert len(NAMED) == len(MUTANTS) >= 25
    assert sum(mutant.parts == 2 for mutant in MUTANTS) >= 2
    assert all(mutant.what.endswith(".") or mutant.what.endswith(")") for mutant in MUTANTS)
    assert all("\n" not in mutant.what for mutant in MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_nothing_is_left_of_a_planted_bug(mutant: Mutant) -> None:
    """What it replaces is something else for the length of the block only."""
    places = [(owner, name) for owner, name, _ in mutant.patches()]
    before = [vars(owner).get(name) for owner, name in places]
    with mutant.planted():
        assert any(vars(owner).get(name) is not was for (owner, name), was in zip(places, before, strict=True))
    assert [vars(owner).get(name) for owner, name in places] == before


def test_a_seed_that_fails_anyway_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug is found by a seed that breaks a promise with it, and keeps it without."""
    violations = iter([Violation("L1", "with"), Violation("L1", "without"), Violation("S2", "with"), None])
    monkeypatch.setattr(hunt, "violated", lambda *_: next(violations))
    found = hunt.hunt(MUTANTS[0], seeds=1)
    assert found == Found(name=MUTANTS[0].name, seed=1, runner="asyncio", violation=Violation("S2", "with"))
