"""What every test has: both event loops, a folder of its own, no thread left behind, no loop blocked."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import blocking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREAD_END_SECONDS = 5.0

# No deadline: a busy machine is no failure. The same examples each time in continuous integration.
settings.register_profile(
    "khonsu",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("khonsu")

blocking.install()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run the test on each event loop; a module of a part that is asyncio only overrides this fixture."""
    return str(request.param)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return an empty folder for one control plane or agent."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def no_khonsu_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings and profiles of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("KHONSU_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread which would keep the process from ending."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if not thread.daemon:
            thread.join(THREAD_END_SECONDS)
            assert not thread.is_alive(), f"the test left the thread {thread.name!r} running"


@pytest.fixture(autouse=True)
def no_loop_blocked() -> Iterator[None]:
    """Fail a test in which the library made a blocking call on an event loop's thread."""
    blocking.found.clear()
    yield
    assert not blocking.found, "blocking calls on an event loop: " + "; ".join(sorted(set(blocking.found)))
