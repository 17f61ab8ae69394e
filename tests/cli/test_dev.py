"""`khonsu dev`: everything in one process, found by itself, and kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_end_to_end import Shell

pytestmark = pytest.mark.end_to_end


def test_a_development_cluster_is_found_and_keeps_its_data(tmp_path: Path) -> None:
    """Without any settings, commands find `khonsu dev`; the next one has the jobs of the one before."""
    shell = Shell(tmp_path)
    assert shell.khonsu("ps").returncode == 2
    for number in (1, 2):
        with shell.program("dev", "--listen", "127.0.0.1:0") as dev:
            assert dev["node"] == "dev"
            assert dev["data_dir"] == str(tmp_path / ".local" / "share" / "khonsu" / "dev")
            done = shell.khonsu("run", "--json", "--", "/bin/echo", "hello")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["run"] == number
    stopped = shell.khonsu("ps", "--data-dir", dev["data_dir"])
    assert (stopped.returncode, "does not run" in stopped.stderr) == (6, True)


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """A second server on the same address, or on the same data, is refused with what to do."""
    shell = Shell(tmp_path)
    with shell.program("server", "--data-dir", "one", "--listen", "127.0.0.1:0") as server:
        address = server["address"].removeprefix("https://")
        taken = shell.khonsu("server", "--data-dir", "two", "--listen", address)
        assert taken.returncode == 1
        assert "another program listens there" in taken.stderr
        twice = shell.khonsu("server", "--data-dir", "one", "--listen", "127.0.0.1:0")
        assert twice.returncode == 1
        assert "in use" in twice.stderr
        assert shell.khonsu("ps", "--data-dir", "one").returncode == 0
