"""Processes seen from outside, through `/proc` (Linux): who descends from whom, their memory and their time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Generator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name in parentheses.
PARENT, USER_TICKS, SYSTEM_TICKS = 1, 11, 12


@contextlib.contextmanager
def adopted_orphans() -> Generator[None, None, None]:
    """Be the parent of all orphans among the descendants of this process, so that none is overlooked."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Return the processes that descend from one, without itself."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):
        if name.isdigit() and (stat := _stat(int(name))):
            children.setdefault(int(stat[PARENT]), []).append(int(name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def pss_bytes(pid: int) -> int:
    """Return the memory of a process, with its share of what it shares with others; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return _field(PROC / str(pid) / "smaps_rollup", "Pss:")
    return 0


def peak_rss_bytes(pid: int) -> int:
    """Return the most memory that a process had; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return _field(PROC / str(pid) / "status", "VmHWM:")
    return 0


def rss_bytes(pid: int) -> int:
    """Return the memory of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return _field(PROC / str(pid) / "status", "VmRSS:")
    return 0


def cpu_seconds(pid: int) -> float:
    """Return the time that a process has computed; 0 if it is gone."""
    stat = _stat(pid)
    return (int(stat[USER_TICKS]) + int(stat[SYSTEM_TICKS])) / TICKS_PER_SECOND if stat else 0.0


def command(pid: int) -> str:
    """Return the name of a process's program; nothing if it is gone."""
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "comm").read_text().strip()
    return ""


def end(pids: list[int]) -> None:
    """Kill processes that were left over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []


def _field(file: Path, name: str) -> int:
    line = next((line for line in file.read_text().splitlines() if line.startswith(name)), None)
    return int(line.split()[1]) * 1024 if line else 0
