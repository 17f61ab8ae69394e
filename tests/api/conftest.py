"""HTTP is served on asyncio only."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Run each test on asyncio."""
    return "asyncio"
