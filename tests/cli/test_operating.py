"""What an operator does all day, on real servers and agents: change a job, watch, empty a machine, take it away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from khonsu.cli import main
from tests.cli.test_end_to_end import END_SECONDS_MAX, Shell

pytestmark = pytest.mark.end_to_end

HERE = ("--data-dir", "s")
WEB = """
name = "web"
driver = "binary"
update = { healthy_for = "10ms" }
[config]
command = "sleep"
args = ["600"]
"""


class Inside(Shell):
    """Runs commands in this process, which is a third of the work; the end-to-end test shows them as processes."""

    def khonsu(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        hidden = {name: None for name in os.environ if name.startswith("XDG_")}
        with chdir(self.folder):
            done = CliRunner().invoke(main, arguments, env={**hidden, **self.environment(**more)})
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def problem(shell: Shell, code: int, *arguments: str) -> dict[str, Any]:
    """Return the problem document of a command that must fail with an exit code, and write nothing else."""
    done = shell.khonsu(*arguments, "--json")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stderr)
    assert {"type", "title", "status", "detail", "hint", "retryable"} <= set(found)
    return found


def first_event(shell: Shell, *arguments: str) -> dict[str, Any]:
    """Follow the events until the first comes, and interrupt the command."""
    with subprocess.Popen(
        [sys.executable, "-m", "khonsu", "event", "watch", "--json", *arguments, *HERE],
        cwd=shell.folder,
        env=shell.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            found: dict[str, Any] = json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(END_SECONDS_MAX) == 130
        finally:
            process.kill()
    return found


def types_of(events: str) -> Sequence[str]:
    """Return the types of events, one a line."""
    return [json.loads(line)["type"] for line in events.splitlines()]


def test_a_job_and_a_machine_from_their_beginning_to_their_end(tmp_path: Path) -> None:
    """Each command says what came of it, and the next one sees it."""
    shell = Inside(tmp_path)
    (tmp_path / "web.toml").write_text(WEB)
    with shell.program("server", *HERE, "--listen", "127.0.0.1:0") as server:
        invited = shell.khonsu("node", "invite", "--name", "one", "--token-only", *HERE)
        joining = ("agent", "--server", server["address"], "--data-dir", "a", "--name", "one", "--pool", "default")
        with shell.program(*joining, KHONSU_JOIN=invited.stdout.strip()):
            assert shell.json("node", "status", "one", *HERE)["pool"] == "default"
            change_a_job(shell)
            watch(shell)
            empty_a_machine(shell)
            refuse(shell)
            shell.json("job", "stop", "web", "--purge", *HERE)
            assert first_event(shell, "--job", "web", "--type", "job-purged")["job"] == "web"
        assert first_event(shell, "--node", "one", "--type", "node-down")["node"] == "one"
        assert shell.json("node", "remove", "one", *HERE)["name"] == "one"
        assert shell.json("node", "list", *HERE) == []
    assert problem(shell, 6, "ps", *HERE)["type"] == "unreachable"


def change_a_job(shell: Shell) -> None:
    """Run, scale and revert a service."""
    assert shell.json("job", "run", "web.toml", *HERE)["status"] == "healthy"
    assert shell.json("job", "scale", "web", "2", *HERE)["version"] == 2
    result = shell.json("job", "wait", "web", *HERE)
    assert (result["status"], len(result["allocations"])) == ("healthy", 2)
    assert shell.json("job", "revert", "web", "--version", "1", *HERE)["version"] == 3
    assert shell.khonsu("job", "wait", "web", *HERE).returncode == 0
    assert [one["version"] for one in shell.json("job", "history", "web", *HERE)] == [3, 2, 1]


def watch(shell: Shell) -> None:
    """Follow the events, and go on where another watch ended."""
    created = first_event(shell, "--job", "web", "--type", "job-created")
    after = ("--after", created["revision"], "--no-follow")
    later = types_of(shell.khonsu("event", "watch", "--json", "--job", "web", *after, *HERE).stdout)
    assert "job-created" not in later
    assert "allocation-healthy" in later


def empty_a_machine(shell: Shell) -> None:
    """Drain the only machine, look how that goes, and call it off."""
    assert shell.json("node", "drain", "one", "--deadline", "10m", *HERE)["eligibility"] == "draining"
    shown = shell.khonsu("node", "status", "one", *HERE).stdout
    assert "copies left: 1" in shown
    assert "(in 10m00s" in shown or "(in 9m" in shown
    assert shell.json("node", "undrain", "one", *HERE)["eligibility"] == "eligible"


def refuse(shell: Shell) -> None:
    """Every refusal is a problem document with an exit code of its own."""
    assert problem(shell, 1, "node", "remove", "one", *HERE)["type"] == "conflict"
    assert problem(shell, 4, "node", "drain", "two", *HERE)["nearest"] is None
    (shell.folder / "token").write_text("guessed")
    assert problem(shell, 5, "ps", "--token-file", "token", *HERE)["type"] == "unauthenticated"
    late = shell.khonsu("run", "--timeout", "10ms", "--name", "late", *HERE, "--", "sleep", "600")
    assert (late.returncode, "job late is not done" in late.stderr) == (7, True)
    assert shell.khonsu("stop", "late", "--purge", *HERE).returncode == 0
    assert first_event(shell, "--job", "late", "--type", "job-purged")["job"] == "late"
