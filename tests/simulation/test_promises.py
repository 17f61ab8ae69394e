from __future__ import annotations

import re
from pathlib import Path

import pytest

from khonsu.testing.simulation.invariants import INVARIANTS

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(
    r"^\| (?P<promise>[DSL]\d+) \| (?P<says>[^|]+) \| (?P<invariants>[^|]+) \| (?P<tests>[^|]+) \|$", re.MULTILINE
)
ROWS = [match.groupdict() for match in ROW.finditer((ROOT / "docs" / "promises.md").read_text(encoding="utf-8"))]
PROMISES = (*(f"D{n}" for n in range(1, 6)), *(f"S{n}" for n in range(1, 11)), *(f"L{n}" for n in range(1, 4)))


def names(cell: str) -> list[str]:
    """Return what a cell names."""
    return re.findall(r"`([^`]+)`", cell)


def test_the_page_lists_every_promise() -> None:
    """All of them, in their order."""
    assert tuple(row["promise"] for row in ROWS) == PROMISES


def test_the_page_lists_every_invariant_with_its_promise() -> None:
    """What looks after a promise is named beside it, and nothing else."""
    listed = {(row["promise"], name) for row in ROWS for name in names(row["invariants"])}
    assert listed == {(invariant.promise, invariant.__name__) for invariant in INVARIANTS}


@pytest.mark.parametrize("row", ROWS, ids=[row["promise"] for row in ROWS])
def test_the_tests_that_hold_a_promise_are_there(row: dict[str, str]) -> None:
    """Each is a file of tests."""
    assert names(row["tests"])
    for name in names(row["tests"]):
        assert "\ndef test_" in (text := (ROOT / name).read_text(encoding="utf-8")) or "\nasync def test_" in text
