"""Processes: who one is, whose child it is, and a signal that cannot reach a stranger."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import time

LINUX = sys.platform.startswith("linux")

_SIGKILL = int(signal.SIGKILL)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PROC_PIDTBSDINFO = 3
_BSDINFO_BYTES = 136
_libc = ctypes.CDLL(None)
if LINUX:
    # Without types: numbers and bytes go through as they are, which touches next to no memory.
    _prctl = _libc.prctl
    _timerfd_create = _libc.timerfd_create
    _timerfd_settime = _libc.timerfd_settime


class Process:
    """What the kernel says of a process.

    `started` is in units of the system's own since boot or epoch: it is compared, never calculated with.
    """

    __slots__ = ("group", "parent", "pid", "session", "started", "zombie")

    def __init__(self, pid: int, parent: int, group: int, session: int, started: int, *, zombie: bool) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.session = session
        self.started = started
        self.zombie = zombie


def look(pid: int) -> Process | None:
    """Return what is known of a process, or None if there is none."""
    if not LINUX:
        return _look_macos(pid)
    try:
        text = read_file(f"/proc/{pid}/stat", 2048)
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()
    return Process(
        pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), zombie=fields[0] in {b"Z", b"X", b"x"}
    )


def _look_macos(pid: int) -> Process | None:
    """Ask libproc; the session is not known there."""
    buffer = ctypes.create_string_buffer(_BSDINFO_BYTES)
    try:
        size = _libc.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), buffer, _BSDINFO_BYTES)
    except AttributeError:
        return None
    if size != _BSDINFO_BYTES:
        return None

    def number(offset: int, size: int) -> int:
        return int.from_bytes(buffer.raw[offset : offset + size], sys.byteorder)

    started = number(120, 8) * 1_000_000 + number(128, 8)
    zombie = number(4, 4) == 5
    return Process(pid, number(16, 4), number(100, 4), 0, started, zombie=zombie)


def is_running(pid: int, started: int) -> bool:
    """Tell whether this very process is there and has not ended."""
    process = look(pid)
    return process is not None and process.started == started and not process.zombie


def everyone() -> list[Process]:
    """Return all processes that can be seen (none where there is no /proc)."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    found = [look(int(name)) for name in names if name.isdigit()]
    return [process for process in found if process is not None]


def descendants(root: int, everybody: list[Process]) -> list[Process]:
    """Return the children of a process, their children, and so on, parents first."""
    children: dict[int, list[Process]] = {}
    for process in everybody:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = [root]
    while todo:
        below = children.pop(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def send_signal(pid: int, started: int, number: int) -> bool:
    """Signal a process if it is this very one.

    Returns:
        Whether the signal was sent; False if the process is gone or is another one by now.

    """
    if not hasattr(os, "pidfd_open"):
        if not is_running(pid, started):
            return False
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_running(pid, started):  # looked at after it is held: the number cannot change hands any more
            return False
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(descriptor)
    return True


def boot_id() -> str:
    """Return what changes with every boot."""
    return _BOOT_ID


def read_file(path: str, bytes_max: int = 65536) -> bytes:
    """Return the beginning of a file; with less memory touched than by `open`, which a helper pays for.

    Raises:
        OSError: There is no such file, or it cannot be read.

    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, bytes_max)
    finally:
        os.close(descriptor)


def _find_boot_id() -> str:
    try:
        return read_file("/proc/sys/kernel/random/boot_id").decode("ascii").strip()
    except OSError:
        buffer = ctypes.create_string_buffer(64)
        size = ctypes.c_size_t(64)
        try:
            _libc.sysctlbyname(b"kern.bootsessionuuid", buffer, ctypes.byref(size), None, ctypes.c_size_t(0))
        except AttributeError:
            return "unknown"
        return buffer.value.decode("ascii", "replace")


_BOOT_ID = _find_boot_id()


def boottime() -> float:
    """Return seconds on a clock that never steps and also runs while the machine is suspended."""
    # macOS has no CLOCK_BOOTTIME; its CLOCK_MONOTONIC does not stop in sleep.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def name_process(name: bytes) -> None:
    """Set the name that `ps` and `top` show (at most 15 bytes)."""
    if LINUX:
        _prctl(_PR_SET_NAME, name, 0, 0, 0)


def become_reaper() -> None:
    """Become the parent of every descendant whose own parent ends."""
    if LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent ends; end at once if it has ended already."""
    if not LINUX:
        return
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


class SuspendTimer:
    """A descriptor that becomes readable at a moment of `boottime`, also if the machine slept meanwhile.

    Where the system has none, `descriptor` is -1 and the owner has to look at the clock now and then.
    """

    __slots__ = ("descriptor",)

    def __init__(self) -> None:
        self.descriptor = -1
        if LINUX and hasattr(time, "CLOCK_BOOTTIME"):
            self.descriptor = _timerfd_create(time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)

    def set(self, moment: float) -> None:
        """Set the moment; an earlier one is forgotten."""
        if self.descriptor < 0:
            return
        seconds = int(moment)
        # struct itimerspec: no interval, then the moment; zero would switch the timer off.
        spec = struct.pack("@4l", 0, 0, seconds, max(1, int((moment - seconds) * 1e9)))
        absolute = 1
        _timerfd_settime(self.descriptor, absolute, spec, None)
