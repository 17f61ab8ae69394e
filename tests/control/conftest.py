"""What the tests of the control plane share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from tests.control.cluster import Cluster, cluster

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from khonsu.abc.store import Store


@pytest.fixture
async def home() -> AsyncGenerator[Cluster, None]:
    """Return a cluster that forgets."""
    async with cluster() as made:
        yield made


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Return each of the stores."""
    return MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "state.db")
