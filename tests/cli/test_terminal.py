"""The command line on a terminal: live progress, logs as they come, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import khonsu

pytestmark = pytest.mark.end_to_end

END_SECONDS_MAX = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a cluster that listens, and return its data directory."""
    directory = tmp_path_factory.mktemp("terminal") / "server"
    with khonsu.LocalCluster(data_dir=directory, listeners=[khonsu.HTTPListener("127.0.0.1:0")]) as cluster:
        (directory / "server.address").write_text(cluster.addresses[0])
        yield directory


class Terminal:
    """A command whose output goes to a terminal."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._fd, screen = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "PY_COLORS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "khonsu", *arguments],
            env={**environment, "TERM": "xterm", "COLUMNS": "120", **variables},
            stdin=subprocess.DEVNULL,
            stdout=screen,
            stderr=screen,
        )
        os.close(screen)
        self.shown = ""

    def until(self, seen: Callable[[str], bool]) -> None:
        """Read until something is on the screen, or the command has ended."""
        while not seen(self.shown):
            try:
                data = os.read(self._fd, 4096)
            except OSError:  # how Linux says that nobody writes to a terminal any more
                return
            self.shown += data.decode()

    def end(self) -> int:
        """Read to the end, and return the exit code."""
        self.until(lambda _: False)
        os.close(self._fd)
        return self.process.wait(END_SECONDS_MAX)


def test_a_batch_job_shows_its_output_and_ctrl_c_detaches(server: Path) -> None:
    """Lines come while the job runs; an interrupt ends the waiting, says so, and leaves the job alone."""
    script = "echo on my way; exec sleep 600"
    words = ("run", "--data-dir", str(server), "--name", "walk", "--", "/bin/sh", "-c", script)
    terminal = Terminal(*words)
    terminal.until(lambda shown: "on my way" in shown)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert "Detached: walk runs on" in terminal.shown
    status = Terminal("job", "status", "walk", "--data-dir", str(server))
    assert status.end() == 0
    assert "running" in status.shown
    assert Terminal("stop", "walk", "--data-dir", str(server)).end() == 0


def test_a_service_shows_live_how_it_goes(server: Path, tmp_path: Path) -> None:
    """A table of the copies is drawn again and again in colour; without colour where that is not wanted."""
    file = tmp_path / "web.toml"
    file.write_text(
        'name = "web"\ncount = 2\ndriver = "binary"\nupdate = { healthy_for = "10ms" }\n'
        '[config]\ncommand = "sleep"\nargs = ["600"]\n'
    )
    live = Terminal("run", str(file), "--data-dir", str(server))
    assert live.end() == 0
    assert "main/1" in live.shown
    assert "\x1b[32mhealthy" in live.shown
    plain = Terminal("ps", "--data-dir", str(server), NO_COLOR="1")
    assert plain.end() == 0
    assert "\x1b" not in plain.shown
    assert "web" in plain.shown


def test_a_shell_can_complete_commands() -> None:
    """The script for a shell is there, and knows the verbs."""
    source = Terminal("--help", _KHONSU_COMPLETE="bash_source")
    assert source.end() == 0
    assert "complete" in source.shown
    words = Terminal(_KHONSU_COMPLETE="bash_complete", COMP_WORDS="khonsu job st", COMP_CWORD="2")
    assert words.end() == 0
    assert {"plain,status", "plain,stop"} <= set(words.shown.split())
