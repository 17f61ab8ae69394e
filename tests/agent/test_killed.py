"""An agent that is killed, with its control plane, in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from khonsu.supervisor.processes import look

PROGRAM = Path(__file__).with_name("one_node.py")


class Run:
    """One run of the program."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), str(folder)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.tasks: list[dict[str, Any]] = json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """End it as nobody can prevent."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.end_to_end
@pytest.mark.every_python
def test_tasks_survive_kill_9(data_dir: Path) -> None:
    """The same processes run on, and what ended while nobody was there is told with its exit code."""
    first = Run(data_dir)
    first.kill()
    pids = {task["pid"] for task in first.tasks if task["job"] == "stays"}
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)
    (data_dir / "fifo").write_text("go\n")
    second = Run(data_dir)
    try:
        stays = [task for task in second.tasks if task["job"] == "stays"]
        assert {task["pid"] for task in stays} == pids
        assert {(task["status"], task["attempt"]) for task in stays} == {("running", 1)}
        (ends,) = [task for task in second.tasks if task["job"] == "ends"]
        assert (ends["status"], ends["exit_code"], ends["attempt"]) == ("failed", 7, 1)
    finally:
        second.kill()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        while any(alive(pid) for pid in pids):
            pass


def alive(pid: int) -> bool:
    """Return whether a process runs."""
    process = look(pid)
    return process is not None and not process.zombie
