"""The examples run as their headers say, each as a program of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.end_to_end


def run(name: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a user would."""
    return subprocess.run(
        [sys.executable, "-m", f"khonsu.examples.{name}"], capture_output=True, text=True, check=False, timeout=110
    )


@pytest.mark.every_python
def test_a_single_node_runs_a_job_and_shows_its_output() -> None:
    """The first example runs its job to the end and shows what the job wrote."""
    done = run("single_node")
    assert (done.returncode, done.stderr) == (0, "")
    assert "It is complete, with exit code 0" in done.stdout
    assert "  hello, moon" in done.stdout


@pytest.mark.timeout(120)
def test_the_copies_of_a_killed_node_run_elsewhere_and_one_of_each_slot_stays() -> None:
    """The example of a failover keeps its promises, with real processes over TLS."""
    done = run("failover")
    assert (done.returncode, done.stderr) == (0, "")
    assert "one copy of each slot" in done.stdout
