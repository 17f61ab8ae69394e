"""The small programs of users run; `scripts/check.py` has type checkers read them at their strictest."""

from __future__ import annotations

from tests.examples.users import client_program, driver_plugin, scheduler_plugin


def test_a_driver_of_a_platform_builder() -> None:
    """It is checked, and runs a job to its exit code."""
    assert driver_plugin.main() == 4


def test_schedulers_of_a_student() -> None:
    """They are checked, and asked for a plan on a cluster."""
    found = scheduler_plugin.main()
    assert (set(found), found["planned"]) == ({"learning", "first-fit", "fullest", "planned"}, 1)


def test_a_program_that_uses_a_control_plane() -> None:
    """It asks for everything once, with and without async."""
    events = ["events", "job, perhaps web", "web"]
    assert client_program.main() == (
        ["home", "healthy", "a port", "updated, placeable", "2", *events],
        ["0", "hello"],
    )
