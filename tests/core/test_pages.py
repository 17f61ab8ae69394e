from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from khonsu.core.states import MACHINES
from tests.strategies import value_classes
from tests.style.source import ROOT


def script() -> ModuleType:
    """Load the script that fills the pages."""
    spec = importlib.util.spec_from_file_location("fill_pages", ROOT / "scripts" / "fill_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["jobs.md", "states.md"])
def test_the_pages_show_what_the_code_says(page: str) -> None:
    """The tables of fields and of states are those of the code; `python scripts/fill_pages.py` makes them."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert script().filled(text) == text


def test_nothing_is_left_out() -> None:
    """Every supported class of a job and every state machine is on its page."""
    later = {"Check", "Device", "Periodic", "SecretUse", "Volume", "ArtifactSource"}
    modules = ("khonsu.core.job", "khonsu.core.task", "khonsu.core.policies", "khonsu.core.conditions")
    classes = {cls.__name__ for cls in value_classes() if cls.__module__ in modules} - later
    jobs = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    states = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!--- fields: (\w+) -->", jobs)) == classes
    assert re.findall(r"<!--- machine: (\w+) -->", states) == [machine.name for machine in MACHINES]
