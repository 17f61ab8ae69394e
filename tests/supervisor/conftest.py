"""Supervisors for tests, which end with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    """Yield a supervisor whose fork server ends as soon as the test has."""
    async with Supervisor(tmp_path / "supervisor", env=SystemEnv(), idle_seconds=0.2) as running:
        yield running
