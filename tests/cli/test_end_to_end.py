"""The command line on real processes: a server, an agent and their user, over TLS on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

pytestmark = [pytest.mark.end_to_end, pytest.mark.every_python]

COMMAND_SECONDS_MAX = 50
END_SECONDS_MAX = 15


@frozen
class Shell:
    """Where commands run, and with which variables."""

    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the variables of somebody who has no settings yet."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "COVERAGE_PROCESS_START") if name in os.environ}
        return {**kept, "HOME": str(self.folder), **more}

    def khonsu(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "khonsu", *arguments],
            cwd=self.folder,
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Return what a command that must succeed writes as JSON."""
        done = self.khonsu(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def program(self, *arguments: str, **more: str) -> Iterator[dict[str, Any]]:
        """Run a server or an agent; yields what it says when it is ready, and ends it with SIGTERM."""
        with subprocess.Popen(
            [sys.executable, "-m", "khonsu", *arguments, "--json"],
            cwd=self.folder,
            env=self.environment(**more),
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield json.loads(process.stdout.readline())
                process.send_signal(signal.SIGTERM)
                assert process.wait(END_SECONDS_MAX) == 0
            finally:
                process.kill()


@contextmanager
def cluster(shell: Shell) -> Iterator[dict[str, Any]]:
    """Own a server and an agent that joined it; yields what the server says of itself."""
    with shell.program("server", "--data-dir", "s", "--listen", "127.0.0.1:0") as server:
        invited = shell.khonsu("node", "invite", "--name", "one", "--token-only", "--data-dir", "s")
        joining = ("agent", "--server", server["address"], "--data-dir", "a", "--name", "one", "--label", "disk=ssd")
        with shell.program(*joining, KHONSU_JOIN=invited.stdout.strip()) as agent:
            assert agent["node"] == "one"
            yield server
    assert not (shell.folder / "s" / "server.address").exists()


def test_from_two_empty_folders_to_a_job_that_ran(tmp_path: Path) -> None:
    """A server, an agent that joins by an invitation, and a job whose exit code, logs and story can be had."""
    shell = Shell(tmp_path)
    with cluster(shell) as server:
        local = ("--data-dir", "s")
        node = shell.json("node", "status", "one", *local)
        assert (node["status"], node["schedulable"], node["labels"]) == ("ready", True, {"disk": "ssd"})

        done = shell.khonsu("run", "--json", *local, "--", "/bin/echo", "hello")
        result = json.loads(done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        assert (result["job"], result["status"], result["exit_code"]) == ("echo", "complete", 0)
        assert [line["text"] for line in jsonl(shell.khonsu("logs", "echo", "--json", *local))] == ["hello"]

        failing = ("--name", "bad", "--", "/bin/sh", "-c", "echo no luck >&2; exit 9")
        assert shell.khonsu("run", *local, *failing).returncode == 1
        assert shell.khonsu("run", "--exit-code", *local, *failing).returncode == 9
        status = shell.khonsu("job", "status", "bad", *local).stdout
        assert "exit code 9" in status
        assert "no luck" in status

        huge = shell.khonsu("run", "--placement-timeout", "10ms", "--cpu", "9999", *local, "--", "/bin/true")
        assert huge.returncode == 3
        assert "cpu: asks 9999" in huge.stdout
        assert shell.khonsu("job", "status", "nothing", *local).returncode == 4

        log_in(shell, server)
        assert [job["name"] for job in shell.json("ps")] == ["bad", "echo", "true"]
        assert shell.json("job", "stop", "true")["stopped"] is True
        assert shell.json("doctor")["ok"] is True


def log_in(shell: Shell, server: dict[str, Any]) -> None:
    """Log in with the fingerprint and the operator's token, after a token that is none was refused."""
    address = ("login", server["address"], "--fingerprint", server["fingerprint"])
    wrong = shell.khonsu(*address, KHONSU_TOKEN="guessed")
    assert wrong.returncode == 5
    assert "guessed" not in wrong.stderr + wrong.stdout
    done = shell.khonsu(*address, "--token-file", "s/operator.token")
    assert done.returncode == 0, done.stderr
    assert len(shell.json("context", "list")) == 1


def jsonl(done: subprocess.CompletedProcess[str]) -> list[Any]:
    """Return the objects that a stream wrote, one a line."""
    return [json.loads(line) for line in done.stdout.splitlines()]
