"""One attempt at running a task, as the fork server sees it: from the request to the moment that it runs.

Whatever can be done for a helper before it exists is done here: a helper pays for each page of memory that it touches.
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
from .lease import read_lease
from .orders import encode_orders
from .processes import boot_id, boottime, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .orders import Spec


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

    `orders` and `descriptors` go to the helper; `waiters` are told when the task has started, or has not.
    """

    def __init__(self, serial: int, spec: Spec) -> None:
        self.serial = serial
        self.spec = spec
        self.directory = spec["directory"]
        self.cgroups = spec["cgroup"]["groups"] if spec["cgroup"] else []
        self.waiters: list[Any] = []
        self.orders = b""
        self.descriptors: list[int] = []
        self.record: dict[str, Any] = {}
        self._error: list[Any] | None = None
        self._go = -1
        self._outputs: list[int] = []

    def claim(self) -> dict[str, Any] | None:
        """Make the attempt ours, or return the record of the helper whose it is.

        The claim is a lock that the helper inherits and keeps until it ends. A record whose lock is free is that of
        a helper that died or has done its work: the attempt was started, and is never started again.

        Raises:
            StartError: The directory cannot be used, or the helper of a server that died is just giving up there.

        """
        with Step("directory"):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(f"{self.directory}/{records.LOCK}", flags, 0o600)
            self.descriptors.append(lock)
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
        spec = self.spec
        if spec["lease_path"] and read_lease(spec["lease_path"]) <= boottime():
            raise StartError("lease", errno.ETIME, "the lease has run out")
        self.orders = encode_orders(self.serial, spec)
        with Step("directory"):
            records.reserve(self.directory, records.ENDED)
            path = f"{self.directory}/{records.CONTROL}"
            records.remove_file(path)
            os.mkfifo(path, 0o600)
            self.descriptors.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            # A writer of its own keeps the FIFO from ever being at its end.
            self.descriptors.insert(-1, os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        with Step("pipe"):
            wake, stdout, stderr, (_, go), report = (self._pipe() for _ in range(5))
            self.descriptors.remove(go)
            self._go = go
        for descriptor in (*wake, stdout[0], stderr[0], report[0]):
            os.set_blocking(descriptor, False)
        self._outputs = [os.fstat(end).st_ino for end in (stdout[1], stderr[1])]
        with Step("user"):
            if spec["uid"] is not None:  # else it could not open /dev/stdout
                os.fchown(stdout[1], spec["uid"], -1)
                os.fchown(stderr[1], spec["uid"], -1)
        with Step("cgroup"):
            if spec["cgroup"]:
                enter_cgroup(spec["cgroup"])

    def _pipe(self) -> tuple[int, int]:
        """Make a pipe whose ends are closed with the others, also if the next one cannot be had."""
        ends = os.pipe()
        self.descriptors += ends
        return ends

    def hand_over(self) -> None:
        """Close what the helper has by now."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self.orders = b""  # some of it is secret

    def release(self, helper: int, task: int) -> None:
        """Record who the helper and the task are, and let the task run; if that fails, the task gives up."""
        try:
            with Step("cgroup"):
                join_cgroup(self.cgroups, task)
            self.record = self._identify(helper, task)
            with Step("directory"):
                records.write_record(self.directory, records.STARTED, self.record)
            with Step("helper"):
                os.write(self._go, GO)
        except StartError as error:
            self._error = error.facts
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
            "outputs": self._outputs,
            "cgroups": self.cgroups,
        }

    def close_go(self) -> None:
        """Let the task give up if it was not let run."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1

    def failure(self, message: bytes) -> list[Any]:
        """Return why the task's process did not become the task: what it says itself, unless it was given up."""
        failure = list(json.loads(message))
        # The helper has cleared up, but perhaps before we wrote this.
        records.remove_file(f"{self.directory}/{records.STARTED}")
        return self._error if self._error and failure[0] == GIVEN_UP else failure

    def abandon(self) -> None:
        """Leave the directory as if nothing had been tried; for when there is no helper."""
        leave_cgroup(self.cgroups)
        records.forget(self.directory)
