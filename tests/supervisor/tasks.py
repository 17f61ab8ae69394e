"""Tasks for tests, and how to look at them without waiting for a clock."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from khonsu.abc.driver import SpawnSpec
from khonsu.supervisor.processes import look

if TYPE_CHECKING:
    from khonsu.abc.driver import Handle
    from khonsu.supervisor.orders import Spec

PATIENCE_SECONDS = 30.0


def bare_spec(folder: Path) -> Spec:
    """Return what the fork server is asked for."""
    return {
        "directory": str(folder), "log_directory": str(folder), "executable": "/bin/true", "argv": [], "env": {},
        "cwd": "/", "uid": None, "gid": None, "groups": None, "log_files": 1, "log_file_bytes": 1, "cgroup": None,
        "lease_path": None, "kill_timeout_seconds": 1.0,
    }  # fmt: skip


def spec(folder: Path, *argv: str, **more: object) -> SpawnSpec:
    """Return what starts a program, with its own directory for the attempt and for logs."""
    values: dict[str, object] = {
        "argv": argv,
        "executable": argv[0],
        "env": {"PATH": "/usr/bin:/bin"},
        "cwd": "/",
        "directory": str(folder / "attempt"),
        "log_directory": str(folder / "logs"),
    }
    return SpawnSpec(**{**values, **more})  # type: ignore[arg-type]


def shell(folder: Path, script: str, **more: object) -> SpawnSpec:
    """Return what runs a shell script."""
    return spec(folder, "/bin/sh", "-c", script, **more)


def python(folder: Path, script: str, *arguments: str, **more: object) -> SpawnSpec:
    """Return what runs a Python script."""
    return spec(folder, sys.executable, "-I", "-S", "-c", script, *arguments, **more)


def fifo(path: Path) -> str:
    """Make a FIFO and return how a shell writes its path."""
    os.mkfifo(path)
    return shlex.quote(str(path))


async def word(path: Path) -> str:
    """Return what a task writes into a FIFO: the wait for it is the wait for the task to be that far."""
    with anyio.fail_after(PATIENCE_SECONDS):
        return (await anyio.to_thread.run_sync(path.read_text, abandon_on_cancel=True)).strip()


async def until_gone(pid: int) -> None:
    """Wait until a process has ended and is reaped, or waits to be."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while (process := look(pid)) is not None and not process.zombie:  # noqa: ASYNC110 - nothing tells us
            await anyio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and has not ended."""
    process = look(pid)
    return process is not None and not process.zombie


def output(folder: Path, stream: str = "stdout") -> str:
    """Return all that is in a stream's log files, in order."""
    files = [path for path in (folder / "logs").glob(f"{stream}.*") if path.suffix != ".idx"]
    return "".join(path.read_text() for path in sorted(files, key=lambda path: int(path.suffix[1:])))


def server_of(handle: Handle) -> int:
    """Return the pid of the fork server behind a running task."""
    helper = look(int(str(handle["helper_pid"])))
    assert helper is not None
    return helper.parent


def boot() -> str:
    """Return the id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
