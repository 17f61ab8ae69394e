"""One attempt at running a task, as the fork server sees it: from the request to the moment that it runs.

Whatever can be done before the fork is done here, in memory that is the server's already; a helper pays for each page
that it touches.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time

from . import records
from .cgroups import enter_cgroup, join_cgroup, leave_cgroup
from .child import GIVEN_UP, GO
from .lease import Lease
from .logs import LogWriter
from .processes import boot_id, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .child import Spec


class StartError(Exception):
    """A task did not start: the step that failed, the error's number and its text."""

    def __init__(self, step: str, number: int, text: str) -> None:
        super().__init__(text)
        self.facts = [step, number, text]


class Step:
    """A block whose `OSError` is the reason why a task does not start."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Say in which step it was."""
        if isinstance(error, OSError):
            raise StartError(self._name, error.errno or errno.EIO, error.strerror or str(error)) from error


class Attempt:
    """Everything that a helper and its task need, opened before they exist.

    `ours` are the descriptors that the helper keeps; `go` stays with the server.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.directory = spec["directory"]
        self.lease = Lease(spec["lease_path"], spec["kill_timeout_seconds"])
        self.waiters: list[Any] = []  # whom to tell when it has started, or has not
        self.error: list[Any] | None = None
        self.record: dict[str, Any] = {}
        self.ours: list[int] = []
        self.go = -1
        self._end: records.Reservation | None = None

    def claim(self) -> dict[str, Any] | None:
        """Make the attempt ours, or return the record of the helper whose it is.

        The claim is a lock that the helper inherits and keeps until it ends. A record whose lock is free is that of
        a helper that died or has done its work: the attempt was started, and is never started again.

        Raises:
            StartError: The directory cannot be used, or another server's helper is just starting there.

        """
        with Step("directory"):
            lock = self._own(os.open(f"{self.directory}/{records.LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                record = records.read_record(self.directory, records.STARTED)
                if record is None:
                    raise
                return record
            return records.read_record(self.directory, records.STARTED)

    def prepare(self) -> None:
        """Make and open what the helper and the task will need.

        Raises:
            StartError: Something cannot be had; `abandon` is to be called.

        """
        if self.lease.expired():
            raise StartError("lease", errno.ETIME, "the lease has run out")
        spec = self.spec
        with Step("directory"):
            self._end = records.Reservation(self.directory, records.ENDED)
            path = f"{self.directory}/{records.CONTROL}"
            records.remove_file(path)
            os.mkfifo(path, 0o600)
            self.control = self._own(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            # A writer of its own keeps the FIFO from ever being at its end.
            self._own(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        with Step("pipe"):
            self.wake, self.waker = self._pipe()
            self.stdout, self.stdout_end = self._pipe()
            self.stderr, self.stderr_end = self._pipe()
            self.report, self.report_end = self._pipe()
            self.go_end, self.go = self._pipe()
            self.ours.remove(self.go)
        for descriptor in (self.wake, self.waker, self.stdout, self.stderr, self.report):
            os.set_blocking(descriptor, False)
        with Step("user"):
            if spec["uid"] is not None:  # else it could not open /dev/stdout
                os.fchown(self.stdout_end, spec["uid"], -1)
                os.fchown(self.stderr_end, spec["uid"], -1)
        with Step("cgroup"):
            if spec["cgroup"]:
                enter_cgroup(spec["cgroup"])
        self.outputs = [os.fstat(descriptor).st_ino for descriptor in (self.stdout_end, self.stderr_end)]
        self.logs = {pipe: self._log(name) for name, pipe in (("stdout", self.stdout), ("stderr", self.stderr))}

    def _log(self, name: str) -> LogWriter:
        spec = self.spec
        return LogWriter(spec["log_directory"], name, files=spec["log_files"], file_bytes=spec["log_file_bytes"])

    def _own(self, descriptor: int) -> int:
        self.ours.append(descriptor)
        return descriptor

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self.ours += ends
        return ends

    def keep_ours(self, *more: int) -> None:
        """Close every descriptor but the helper's, the standard ones and those given; in the helper."""
        last = 2
        if self.lease.descriptor >= 0:
            self.ours.append(self.lease.descriptor)
        for descriptor in sorted([*self.ours, *more]):
            os.closerange(last + 1, descriptor)
            last = descriptor
        os.closerange(last + 1, 65536)

    def close_ours(self) -> None:
        """Close the helper's descriptors; in the server."""
        for descriptor in self.ours:
            os.close(descriptor)
        self.ours.clear()
        self.lease.close()

    def release(self, helper: int, task: int) -> None:
        """Record who the helper and the task are, and let the task run; else it gives up, and `error` says why."""
        spec = self.spec
        try:
            with Step("cgroup"):
                if spec["cgroup"]:
                    join_cgroup(spec["cgroup"]["groups"], task)
            self.record = self._identify(helper, task)
            with Step("directory"):
                records.write_record(self.directory, records.STARTED, self.record)
            with Step("helper"):
                os.write(self.go, GO)
        except StartError as error:
            self.error = error.facts
        self.close_go()

    def _identify(self, helper: int, task: int) -> dict[str, Any]:
        its, the_tasks = look(helper), look(task)
        return {
            "protocol": records.PROTOCOL,
            "boot": boot_id(),
            "helper_pid": helper,
            "helper_started": its.started if its else 0,
            "pid": task,
            "started": the_tasks.started if the_tasks else 0,
            "started_at": time.time(),
            "outputs": self.outputs,
            "cgroups": self.spec["cgroup"]["groups"] if self.spec["cgroup"] else [],
        }

    def failed(self, message: bytes) -> list[Any]:
        """Return why the task's process did not become the task: what it says itself, unless it was given up."""
        failure = list(json.loads(message))
        # The helper has cleared up, but perhaps before we wrote this.
        records.remove_file(f"{self.directory}/{records.STARTED}")
        return self.error if self.error and failure[0] == GIVEN_UP else failure

    def close_go(self) -> None:
        """Let the task give up if it was not let run."""
        if self.go >= 0:
            os.close(self.go)
            self.go = -1

    def publish_end(self, record: str) -> None:
        """Record how it ended; in the helper."""
        if self._end:
            self._end.fill(record.encode())
            self._end.publish()

    def abandon(self) -> None:
        """Leave the directory as if nothing had been tried."""
        if self.spec["cgroup"]:
            leave_cgroup(self.spec["cgroup"]["groups"])
        if self._end:
            self._end.cancel()
        for name in (records.STARTED, records.CONTROL):
            records.remove_file(f"{self.directory}/{name}")
