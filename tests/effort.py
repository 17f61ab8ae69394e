"""How much the tests try: a little on the newer Pythons, the usual, or as much as is ever of use.

`--effort small` is for what a newer Python may do differently: one event loop, few examples, and nothing that is about
whole programs, text or great sizes but for what is marked `every_python`. `--effort full` tries many more examples,
seeds and moments; it takes minutes, and `make thorough` runs it.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
OLDEST_PYTHON = tuple(
    TESTS / name
    for name in ("api/test_openapi.py", "bench", "docs", "faults", "simulation/test_regressions.py", "style")
)
"""What only the oldest supported Python runs, and a newer one need not even import."""


class Effort(StrEnum):
    """How much is tried."""

    SMALL = "small"
    USUAL = "usual"
    FULL = "full"


EXAMPLES_PERCENT = {Effort.SMALL: 10, Effort.USUAL: 100, Effort.FULL: 1000}
EXAMPLES_MIN = 5


def examples(count: int) -> settings:
    """Return settings for so many examples with the usual effort, and in proportion with another."""
    percent = settings().max_examples
    return settings(max_examples=max(count * percent // 100, min(count, EXAMPLES_MIN)))


def kept(item: pytest.Item, effort: Effort) -> bool:
    """Say whether a test is run with that effort."""
    if effort is not Effort.SMALL or item.get_closest_marker("every_python"):
        return True
    if any(item.get_closest_marker(name) for name in ("end_to_end", "costly")):
        return False
    parameters: dict[str, Any] = (
        item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    )
    return "trio" not in (parameters.get("anyio_backend"), parameters.get("runner"))
