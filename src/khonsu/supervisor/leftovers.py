"""What a helper that died may have left behind. The fork server sees to it; this is for when that is dead, too."""

from __future__ import annotations

import os
import signal

from .cgroups import leave_cgroup
from .processes import Process, boot_id, everyone, is_running, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def kill_leftovers(record: Mapping[str, Any]) -> bool:
    """Kill what is left of a task whose helper is dead, and nobody else.

    Args:
        record: What the helper's record says.

    Returns:
        Whether there was something left to kill; then it is worth to look again.

    """
    if record.get("boot") != boot_id():
        return False
    groups = [str(group) for group in record.get("cgroups", ())]
    leave_cgroup(groups)
    pid, started = int(record["pid"]), int(record["started"])
    outputs = set(record.get("outputs", ()))
    found = [process for process in everyone() if _belongs(process, pid, started, outputs)]
    for process in found:
        send_signal(process.pid, process.started, signal.SIGKILL)
    return bool(found) or is_running(pid, started)


def _belongs(process: Process, task: int, started: int, outputs: set[int]) -> bool:
    """Tell whether a process is the task's own, or is in its session and writes into its output."""
    if process.zombie or process.started < started:
        return False
    if process.pid == task:
        return process.started == started
    return process.session == task and bool(outputs & {_inode(process.pid, 1), _inode(process.pid, 2)})


def _inode(pid: int, descriptor: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/fd/{descriptor}").st_ino
    except OSError:
        return -1
