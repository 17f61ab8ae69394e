"""A helper: the one small process that owns a task's process, its output and the record of its end."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from os import _exit, fork, getpid, setsid  # a name touches less memory than an attribute, in what is not warmed up
from signal import set_wakeup_fd

from . import records
from .cgroups import leave_cgroup, out_of_memory_kills
from .child import become_task
from .lease import Lease
from .logs import LogWriter
from .orders import Orders, encode_orders
from .processes import LINUX, become_reaper, boottime, descendants, everyone, name_process, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Self

    from .orders import Spec

_CHUNK_BYTES = 65536
_FAILURE_BYTES_MAX = 512
_RESCAN_SECONDS = 0.02
_RESCAN_SECONDS_MAX = 2.0
_NEVER = float("inf")
_WAITID = hasattr(os, "waitid")
_LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT if _WAITID else 0
_WARM_UPS = 20  # the interpreter adapts a function after eight calls or so


def run_helper(orders: Orders, reports: int) -> NoReturn:
    """Be the helper of an attempt, until it has ended; never returns.

    Args:
        orders: What to run, with all that is open for it.
        reports: A pipe to the server; gets the pid of the task, then whether its program runs.

    """
    setsid()
    become_reaper()
    helper = getpid()
    task = fork()
    if not task:
        become_task(orders, helper)
    Helper(orders, reports, task).begin(helper).watch()
    _exit(0)


def warm_up() -> None:
    """Run what every helper runs first, so that the interpreter adapts this code to what it does now and not then.

    It does so in place: in a helper, that would be pages of its own, a quarter of its memory. The caller must have a
    child that goes on, as a helper has.
    """
    spec: Spec = {
        "directory": "/", "log_directory": "/", "executable": "/", "argv": [], "env": {}, "cwd": "/", "uid": None,
        "gid": None, "groups": None, "log_files": 1, "log_file_bytes": 1, "cgroup": None, "lease_path": None,
        "kill_timeout_seconds": 1.0,
    }  # fmt: skip
    data = encode_orders(0, spec)
    for _ in range(_WARM_UPS):
        become_reaper()
        control, wake, stdout, stderr, go, report, reports = (os.pipe() for _ in range(7))
        os.set_blocking(wake[1], False)
        orders = Orders(data, (-1, -1, control[0], *wake, *stdout, *stderr, go[0], *report))
        Helper(orders, reports[1], 0).begin(0).turn()  # which closes what is closed for good then
        set_wakeup_fd(-1)
        for end in (*control, *wake, go[1], reports[0]):
            os.close(end)


class Helper:
    """Drains the output of a task, obeys commands, and records the end.

    It ends when its task has ended, and never before: whatever goes wrong, the task goes on.
    """

    __slots__ = (
        "_childless", "_dropped_bytes", "_failed", "_kill_at", "_lease", "_logs", "_orders", "_poller", "_reports",
        "_rescan_seconds", "_status", "_stopping", "_task",
    )  # fmt: skip

    def __init__(self, orders: Orders, reports: int, task: int) -> None:
        self._orders = orders
        self._reports = reports
        self._task = task
        self._lease = Lease(orders.lease_path, orders.kill_timeout_seconds) if orders.lease_path else None
        self._logs: dict[int, LogWriter | None] = {orders.stdout: None, orders.stderr: None}
        self._status: int | None = None  # of the task's own process, once it has ended
        self._failed = False
        self._childless = False
        self._stopping = False
        self._kill_at = _NEVER  # on the clock of `boottime`
        self._rescan_seconds = _RESCAN_SECONDS
        self._dropped_bytes = 0
        self._poller = select.poll()
        for descriptor in (orders.wake, orders.control, orders.report, orders.stdout, orders.stderr):
            self._poller.register(descriptor, select.POLLIN)
        if self._lease and self._lease.descriptor >= 0:
            self._poller.register(self._lease.descriptor, select.POLLIN)

    def begin(self, helper: int) -> Self:
        """Say who we are, and leave to the task what is its own."""
        orders = self._orders
        set_wakeup_fd(orders.waker, warn_on_full_buffer=False)
        os.write(self._reports, b"task %d %d %d\n" % (orders.serial, helper, self._task))
        for descriptor in (orders.stdout_end, orders.stderr_end, orders.go_end, orders.report_end):
            os.close(descriptor)
        orders.argv = orders.env = None  # some of it is secret
        name_process(b"khonsu-task")
        self._reap()  # it may have ended before we could be woken
        return self

    def watch(self) -> None:
        """Serve until nothing of the task is left, then record its end."""
        while not (self._childless and self._status is not None):
            self.turn()
        self._learn()
        if self._failed:
            return
        for descriptor in list(self._logs):
            while self._pump(descriptor):
                pass
        self._record_end()

    def turn(self) -> None:
        """Wait until something happens, and do what is due then."""
        orders = self._orders
        for descriptor, _ in self._poller.poll(self._patience_ms()):
            if descriptor in self._logs:
                self._pump(descriptor)
            elif descriptor == orders.report:
                self._learn()
            elif descriptor == orders.control:
                self._obey()
            else:
                _empty(descriptor)
        self._reap()
        self._keep_time()

    def _learn(self) -> None:
        """Tell the server whether the program of the task runs: then the other end is closed without a word."""
        orders = self._orders
        if self._reports < 0:
            return
        try:
            failure = os.read(orders.report, _FAILURE_BYTES_MAX)
        except BlockingIOError:
            failure = b""  # it has ended without a word, before the server has closed its copy of the other end
        if failure:
            self._failed = True
            leave_cgroup(orders.cgroups)
            records.forget(orders.directory)
            word = b"failed %d %s\n" % (orders.serial, failure)
        else:
            word = b"started %d\n" % orders.serial
        try:
            os.write(self._reports, word)
        except BrokenPipeError:
            pass  # the server is dead; the task goes on
        self._poller.unregister(orders.report)
        os.close(orders.report)
        os.close(self._reports)
        self._reports = -1

    def _patience_ms(self) -> int | None:
        """Return how long the next thing that is ours to do may wait."""
        if self._killing():
            wait = self._rescan_seconds
        elif self._kill_at == _NEVER and self._lease is None:
            return None
        else:
            wait = min(self._kill_at - boottime(), self._lease.patience_seconds() if self._lease else _NEVER)
        return max(0, int(wait * 1000) + 1) if wait < _NEVER else None

    def _killing(self) -> bool:
        if self._status is not None and not self._stopping:
            return True
        return self._kill_at < _NEVER and boottime() >= self._kill_at

    def _pump(self, descriptor: int) -> bool:
        """Move output to the log; False when there is none for now or the last writer is gone."""
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        log = self._logs[descriptor]
        if data:
            if log is None:
                log = self._logs[descriptor] = self._open_log(descriptor)
            log.write(data)
            return True
        self._poller.unregister(descriptor)
        os.close(descriptor)
        del self._logs[descriptor]
        if log is not None:
            log.close()
            self._dropped_bytes += log.dropped
        return False

    def _open_log(self, descriptor: int) -> LogWriter:
        orders = self._orders
        name = "stdout" if descriptor == orders.stdout else "stderr"
        return LogWriter(orders.log_directory, name, files=orders.log_files, file_bytes=orders.log_file_bytes)

    def _obey(self) -> None:
        """Carry out commands: one JSON object a line, each written in one piece."""
        for line in os.read(self._orders.control, _CHUNK_BYTES).splitlines():
            try:
                command = json.loads(line)
                verb, number = command["command"], int(command["signal"])
                grace_seconds = float(command.get("grace_seconds", 0.0))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            if not 0 < number < signal.NSIG:
                continue
            if verb == "stop":
                self._stop(number, boottime() + grace_seconds)
            elif verb == "signal" and self._status is None:
                self._signal_group(number)

    def _stop(self, number: int, kill_at: float) -> None:
        """Signal everything that belongs to the task, and remember when patience ends."""
        self._kill_at = min(self._kill_at, kill_at)
        self._stopping = True
        if self._status is None:
            self._signal_group(number, signal.SIGCONT)  # who is stopped could not react
        for process in descendants(os.getpid(), everyone()) if LINUX else []:
            if process.group != self._task or self._status is not None:
                send_signal(process.pid, process.started, number)
                send_signal(process.pid, process.started, signal.SIGCONT)

    def _signal_group(self, *numbers: int) -> None:
        """Signal the process group; only while its leader is not reaped, so that its number is nobody else's."""
        for each in numbers:
            try:
                os.killpg(self._task, each)
            except (ProcessLookupError, PermissionError):
                return

    def _keep_time(self) -> None:
        """Act on the end of the lease, of patience, and of the task."""
        lease = self._lease
        if lease and not lease.lost and lease.expired():
            lease.lost = True
            self._stop(signal.SIGTERM, lease.kill_at())
            lease.wake_at(self._kill_at)
        if not self._childless and self._killing():
            self._rescan_seconds = min(self._rescan_seconds * 2, _RESCAN_SECONDS_MAX)
            self._kill_all()

    def _kill_all(self) -> None:
        """Kill the group and our children; what these leave behind becomes our child and is next."""
        if self._status is None:
            self._signal_group(signal.SIGKILL)
        me = os.getpid()
        for process in everyone():
            if process.parent == me and not process.zombie:
                _signal_own(process.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Take note of children that ended."""
        try:
            while pid := self._reap_one():
                if pid == self._task and not LINUX:
                    self._signal_group(signal.SIGKILL)  # nobody gives us the orphans to wait for
        except ChildProcessError:
            self._childless = True

    def _reap_one(self) -> int:
        """Reap a child and return its pid, or 0 if all go on."""
        pid, options = -1, os.WNOHANG
        if _WAITID:
            result = os.waitid(os.P_ALL, 0, _LOOK)
            pid, options = result.si_pid if result else 0, 0
            if not pid:
                return 0
            if pid == self._task and not self._stopping:
                self._signal_group(signal.SIGKILL)  # the rest of the group, while its number is taken
        pid, status = os.waitpid(pid, options)
        if pid == self._task:
            self._status = status
        return pid

    def _record_end(self) -> None:
        """Publish how the task ended, then remove what was needed to control it: who does not find that, finds how."""
        orders, status = self._orders, self._status or 0
        signalled = os.WIFSIGNALED(status)
        failed = signalled or os.WEXITSTATUS(status) != 0
        kills = out_of_memory_kills(orders.events) if orders.events else 0
        dropped = self._dropped_bytes + sum(log.dropped for log in self._logs.values() if log)
        # Not by the json module: for so little text it is most of the work of a short task's end.
        record = (
            f'{{"protocol": {records.PROTOCOL}, "code": {"null" if signalled else os.WEXITSTATUS(status)}, '
            f'"signal": {os.WTERMSIG(status) if signalled else "null"}, '
            f'"out_of_memory": {_json_bool(kills > 0 and failed)}, "finished_at": {time.time()!r}, '
            f'"lease_expired": {_json_bool(self._lease is not None and self._lease.lost)}, "dropped_bytes": {dropped}}}'
        )
        leave_cgroup(orders.cgroups)
        records.fill(orders.directory, records.ENDED, record.encode())
        records.remove_file(f"{orders.directory}/{records.CONTROL}")


def _json_bool(value: bool) -> str:  # noqa: FBT001 - that is what it converts
    return "true" if value else "false"


def _signal_own(pid: int, number: int) -> None:
    """Signal a child of ours, which keeps its number until we reap it."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _empty(descriptor: int) -> None:
    try:
        os.read(descriptor, 4096)
    except BlockingIOError:
        return
