"""Programs that serve: what they do to their own process, and what the library must not do."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

from khonsu.control.plane import ControlPlane
from khonsu.env import calm_collector
from khonsu.stores.memory import MemoryStore


@pytest.fixture
def collector() -> Generator[tuple[int, int, int], None, None]:
    """Return the thresholds of the collector, and restore it afterwards."""
    thresholds = gc.get_threshold()
    yield thresholds
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_a_server_sets_aside_what_is_there() -> None:
    """What a server has when it begins to serve is not looked through again, and the rest seldom."""
    calm_collector()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] > 10_000


@pytest.mark.anyio
async def test_the_library_leaves_the_collector_alone(collector: tuple[int, int, int]) -> None:
    """A control plane in somebody's program changes nothing of that program's garbage collection."""
    frozen = gc.get_freeze_count()
    async with ControlPlane(store=MemoryStore()):
        assert gc.get_threshold() == collector
        assert gc.get_freeze_count() == frozen
