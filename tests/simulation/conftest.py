from __future__ import annotations

import pytest


@pytest.fixture
def no_loop_blocked() -> None:
    """Let calls block the event loop: the threads of a simulated host run inline."""
