"""A task's own cgroups: made and filled before it runs, emptied and removed after it."""

from __future__ import annotations

import os
import signal
import time

from .processes import look, read_file, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .orders import Cgroup

_REMOVE_SECONDS = 2.0
_MAKE_TRIES = 20


def enter_cgroup(cgroup: Cgroup) -> None:
    """Make the groups and set their limits; the task is put into them later.

    Raises:
        OSError: The kernel refused; some groups may be left.

    """
    for tries_left in reversed(range(_MAKE_TRIES)):
        try:
            _make(cgroup)
            break
        except FileNotFoundError:
            if not tries_left:
                raise
            # Between our two steps the last task of before went, and took the group with it that is for all.
    for path, value in cgroup["settings"]:
        write_file(path, value)


def _make(cgroup: Cgroup) -> None:
    for base, settings in cgroup["bases"]:
        try:
            os.mkdir(base)
        except FileExistsError:
            continue
        for path, value in settings:
            write_file(path, value)
    for group in cgroup["groups"]:
        try:
            os.mkdir(group)
        except FileExistsError:
            _kill_members(group)  # of a helper that died before it could clear up


def join_cgroup(groups: list[str], pid: int) -> None:
    """Put a process into the groups.

    Raises:
        OSError: The kernel refused.

    """
    for group in groups:
        write_file(f"{group}/cgroup.procs", str(pid))


def out_of_memory_kills(events: str | None) -> int:
    """Return how many processes of the group the kernel has killed for want of memory."""
    if events is None:
        return 0
    try:
        lines = read_file(events).decode("ascii").splitlines()
    except OSError:
        return 0
    counts = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
    return int(counts[0]) if counts else 0


def leave_cgroup(groups: list[str]) -> None:
    """Kill whatever is in the groups and remove them, and with the last of them the group that was for all."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    left = list(groups)
    while left:
        left = [group for group in left if not _remove(group)]
        if not left or time.monotonic() > deadline:
            break
        for group in left:
            _kill_members(group)
        time.sleep(0.002)
    for group in groups:
        _remove(os.path.dirname(group))  # only an empty group can be removed


def write_file(path: str, text: str) -> None:
    """Write to a file that is there, in one piece.

    Raises:
        OSError: There is no such file, or the kernel does not take the value.

    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _remove(group: str) -> bool:
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _members(group: str) -> list[int]:
    try:
        return [int(line) for line in read_file(f"{group}/cgroup.procs", 2**20).splitlines()]
    except OSError:
        return []


def _kill_members(group: str) -> None:
    """Kill every process in a group, and nobody who left it meanwhile."""
    try:
        write_file(f"{group}/cgroup.kill", "1")
    except OSError:
        seen = [look(pid) for pid in _members(group)]
        still = set(_members(group))
        for process in seen:
            if process is not None and process.pid in still:
                send_signal(process.pid, process.started, signal.SIGKILL)
