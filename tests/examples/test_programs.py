"""The programs in `examples/` run as their headers say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(FOLDER.glob("*.py"))


def load(path: Path) -> ModuleType:
    """Import a program without running it."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.stem))
def test_a_program_has_a_header(path: Path) -> None:
    """Each program says what it is, what it needs, how to run it, and what to expect."""
    header = load(path).__doc__ or ""
    assert re.findall(r"^(What|Needs|Run|Expect):", header, re.MULTILINE) == ["What", "Needs", "Run", "Expect"]
    assert f"python examples/{path.name}" in header


def test_schedulers_of_your_own_place_as_they_say() -> None:
    """One scheduler fills a node, the other keeps them even."""
    assert load(FOLDER / "own_scheduler.py").main() == {"fill": [4], "even": [2, 2]}


def test_a_service_learns_of_ends_from_events() -> None:
    """A program with a control plane in it runs its orders, and sees which failed."""
    assert load(FOLDER / "embedded.py").main() == {"docs": 0, "tests": 3, "wheel": 0}


def test_a_notebook_sweeps_over_parameters() -> None:
    """Synchronous code runs jobs side by side, and reads their output."""
    assert load(FOLDER / "notebook.py").main() == {2: "376", 3: "1", 5: "625", 7: "1"}


def test_each_program_is_tested() -> None:
    """No program is left out here."""
    assert [path.name for path in PROGRAMS] == ["embedded.py", "notebook.py", "own_scheduler.py"]
