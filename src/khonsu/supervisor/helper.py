"""A helper: the one small process that owns a task's process, its output and the record of its end."""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import time

from . import records
from .cgroups import leave_cgroup, out_of_memory_kills
from .child import become_task
from .processes import LINUX, become_reaper, boottime, descendants, everyone, name_process, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from .attempt import Attempt

_CHUNK_BYTES = 65536
_RESCAN_SECONDS = 0.02
_RESCAN_SECONDS_MAX = 2.0
_NEVER = float("inf")


def run_helper(attempt: Attempt, server: int) -> NoReturn:
    """Be the helper of an attempt, until it has ended; never returns.

    Args:
        attempt: What to run, with all that is open for it.
        server: A datagram socket; gets the pid of the task, then whether its program runs.

    """
    gc.disable()
    attempt.keep_ours(server)
    os.setsid()
    become_reaper()
    signal.set_wakeup_fd(attempt.waker, warn_on_full_buffer=False)
    helper = os.getpid()
    task = os.fork()
    if not task:
        become_task(
            attempt.spec,
            helper=helper,
            stdout=attempt.stdout_end,
            stderr=attempt.stderr_end,
            go=attempt.go_end,
            report=attempt.report_end,
        )
    os.write(server, b"%d task %d" % (helper, task))
    for descriptor in (attempt.stdout_end, attempt.stderr_end, attempt.go_end, attempt.report_end):
        os.close(descriptor)
    name_process(b"khonsu-task")
    Helper(attempt, server, task).watch()
    os._exit(0)


class Helper:
    """Drains the output of a task, obeys commands, and records the end.

    It ends when its task has ended, and never before: whatever goes wrong, the task goes on.
    """

    def __init__(self, attempt: Attempt, server: int, task: int) -> None:
        self._attempt = attempt
        self._server = server
        self._task = task
        self._lease = attempt.lease
        self._logs = attempt.logs
        self._status: int | None = None  # of the task's own process, once it has ended
        self._failed = False
        self._childless = False
        self._stopping = False
        self._kill_at = _NEVER  # on the clock of `boottime`
        self._rescan_seconds = _RESCAN_SECONDS
        self._dropped_bytes = 0
        self._poller = select.poll()
        for descriptor in (attempt.wake, attempt.control, attempt.report, *self._logs):
            self._poller.register(descriptor, select.POLLIN)
        if self._lease.descriptor >= 0:
            self._poller.register(self._lease.descriptor, select.POLLIN)

    def watch(self) -> None:
        """Serve until nothing of the task is left, then record its end."""
        attempt = self._attempt
        while not (self._childless and self._status is not None):
            for descriptor, _ in self._poller.poll(self._patience_ms()):
                if descriptor in self._logs:
                    self._pump(descriptor)
                elif descriptor == attempt.report:
                    self._learn()
                elif descriptor == attempt.control:
                    self._obey()
                else:
                    _empty(descriptor)
            self._reap()
            self._keep_time()
        self._learn()
        if self._failed:
            return
        for descriptor in list(self._logs):
            while self._pump(descriptor):
                pass
        self._record_end()

    def _learn(self) -> None:
        """Tell the server whether the program of the task runs: then the other end is closed without a word."""
        if self._server < 0:
            return
        failure = os.read(self._attempt.report, 4096)
        if failure:
            self._failed = True
            self._attempt.abandon()
        os.write(self._server, b"%d %s %s" % (os.getpid(), b"failed" if failure else b"started", failure))
        self._poller.unregister(self._attempt.report)
        os.close(self._attempt.report)
        os.close(self._server)
        self._server = -1
        self._attempt.spec["env"] = {}  # some of it is secret
        self._attempt.spec["argv"] = []

    def _patience_ms(self) -> int | None:
        """Return how long the next thing that is ours to do may wait."""
        if self._killing():
            wait = self._rescan_seconds
        else:
            wait = min(self._kill_at - boottime(), self._lease.patience_seconds())
        return None if wait == _NEVER else max(0, int(wait * 1000) + 1)

    def _killing(self) -> bool:
        ended = self._status is not None and not self._stopping
        return ended or boottime() >= self._kill_at

    def _pump(self, descriptor: int) -> bool:
        """Move output to the log; False when there is none for now or the last writer is gone."""
        try:
            data = os.read(descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._logs[descriptor].write(data)
            return True
        self._poller.unregister(descriptor)
        os.close(descriptor)
        log = self._logs.pop(descriptor)
        log.close()
        self._dropped_bytes += log.dropped
        return False

    def _obey(self) -> None:
        """Carry out commands: one JSON object a line, each written in one piece."""
        for line in os.read(self._attempt.control, _CHUNK_BYTES).splitlines():
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
        if not self._lease.lost and self._lease.expired():
            self._lease.lost = True
            self._stop(signal.SIGTERM, self._lease.kill_at())
            self._lease.wake_at(self._kill_at)
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
        if hasattr(os, "waitid"):
            result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
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
        """Publish how the task ended, and remove what was needed to control it."""
        attempt, status = self._attempt, self._status or 0
        signalled = os.WIFSIGNALED(status)
        failed = signalled or os.WEXITSTATUS(status) != 0
        cgroup = attempt.spec["cgroup"]
        kills = out_of_memory_kills(cgroup["events"]) if cgroup else 0
        dropped = self._dropped_bytes + sum(log.dropped for log in self._logs.values())
        # Not by the json module: for so little text it is most of the work of a short task's end.
        record = (
            f'{{"protocol": {records.PROTOCOL}, "code": {"null" if signalled else os.WEXITSTATUS(status)}, '
            f'"signal": {os.WTERMSIG(status) if signalled else "null"}, '
            f'"out_of_memory": {_json_bool(kills > 0 and failed)}, "finished_at": {time.time()!r}, '
            f'"lease_expired": {_json_bool(self._lease.lost)}, "dropped_bytes": {dropped}}}'
        )
        if cgroup:
            leave_cgroup(cgroup["groups"])
        records.remove_file(f"{attempt.directory}/{records.CONTROL}")
        attempt.publish_end(record)


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
