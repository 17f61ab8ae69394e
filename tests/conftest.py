"""What every test has: both event loops, a folder of its own, no thread left behind, no loop blocked."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests import blocking
from tests.effort import EXAMPLES_PERCENT, OLDEST_PYTHON, Effort, kept

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

THREAD_END_SECONDS = 5.0

blocking.install()

# A shell has what it runs in the background ignore interrupts, and so would all programs that are started here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let it be said how much is tried."""
    parser.addoption("--effort", type=Effort, choices=list(Effort), default=Effort.USUAL, help="how much is tried")


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples there are, before the tests that say how many they want are read."""
    # No deadline: a busy machine is no failure. The same examples each time in continuous integration.
    settings.register_profile(
        "khonsu",
        max_examples=EXAMPLES_PERCENT[config.getoption("effort")],
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("khonsu")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out files that a newer Python need not run."""
    return True if config.getoption("effort") is Effort.SMALL and collection_path in OLDEST_PYTHON else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests that a newer Python need not run."""
    chosen = [item for item in items if kept(item, config.getoption("effort"))]
    if left_out := [item for item in items if item not in set(chosen)]:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


@pytest.fixture(scope="session")
def effort(pytestconfig: pytest.Config) -> Effort:
    """Return how much is tried."""
    chosen: Effort = pytestconfig.getoption("effort")
    return chosen


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
