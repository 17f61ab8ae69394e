"""The fork server: starts tasks for an agent, and outlives it.

It is two processes: the forker, which forks helpers and does nothing else, and this one, which speaks with agents and
prepares what a helper needs. It listens on a socket in its own directory, for its own user only. Requests and answers
are one JSON object a line; any number of requests may be under way on a connection, and `id` says which is answered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import time

from . import records
from .attempt import Attempt, StartError
from .cgroups import leave_cgroup
from .forker import Forker, send_orders
from .helper import warm_up
from .processes import become_reaper, name_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .orders import Spec

SOCKET = "socket"
LOCK = "lock"
LOG = "server.log"

_LINE_BYTES_MAX = 16 * 2**20
_CHUNK_BYTES = 2**18
_FILES_MAX = 65536
_SMALL_BYTES = 480  # with its header, what a `bytes` object of the largest size takes that the interpreter calls small
_STEP_BYTES = 16
_TAKEN_EACH = 50
_taken: list[bytes] = []
_FULL_SECONDS = 0.05
_FIRST_FREE = 3  # after standard input, output and error
_DISREGARDED = frozenset(
    {signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGXFSZ},
)


def main(arguments: Sequence[str]) -> int:
    """Serve a directory in the background, unless another server does; return when it is being served."""
    directory, idle_seconds = arguments
    try:
        os.setsid()
    except PermissionError:
        pass  # we lead a group already: as good
    os.closerange(_FIRST_FREE, _FILES_MAX)
    os.umask(0o077)
    os.chdir(directory)
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    records.remove_file(SOCKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(SOCKET)
    listener.listen(128)
    listener.setblocking(False)
    if os.access(LOG, os.F_OK):
        os.rename(LOG, f"{LOG}.1")  # what the server before us had to say, if it died
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    if os.fork():
        os._exit(0)  # whoever started us sees that the socket is there
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (null, 1), (log, 2)):
        os.dup2(source, target)
    _set_limits()
    _set_signals()
    _split(listener, lock, float(idle_seconds))
    return 0


def _split(listener: socket.socket, lock: int, idle_seconds: float) -> None:
    """Become two processes: the forker, and its child that serves agents. Either ends soon after the other."""
    inner, outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    reports, reports_end = os.pipe()
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):  # a user who has many large pipes already gets no other
            fcntl.fcntl(reports, fcntl.F_SETPIPE_SZ, 2**20)  # room for all that can be said while nobody listens
    gc.collect()
    gc.freeze()
    server = os.fork()
    if not server:
        inner.close()
        os.close(reports_end)
        name_process(b"khonsu-server")
        ForkServer(listener, outer, reports, idle_seconds).serve()
        os._exit(0)
    # The lock is the server's: it must not be held by helpers, which outlive it.
    for descriptor in (listener.detach(), outer.detach(), lock, reports):
        os.close(descriptor)
    become_reaper()
    forker = Forker(inner, reports_end, server)
    warm_up()
    name_process(b"khonsu-forker")
    _settle()
    forker.serve()


def _settle() -> None:
    """Arrange memory so that a helper writes to few of the pages that it shares with its forker."""
    gc.collect()
    gc.disable()  # it writes to every object that it looks at
    # Take what is free between other things, once and for all: what a helper allocates then lies close together.
    _taken.extend(bytes(size) for size in range(1, _SMALL_BYTES, _STEP_BYTES) for _ in range(_TAKEN_EACH))
    gc.freeze()


class Connection:
    """One agent's connection, with what was read and what is still to be written."""

    __slots__ = ("incoming", "outgoing", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.incoming = bytearray()
        self.outgoing = bytearray()

    def flush(self) -> bool:
        """Write what the socket takes; False if the agent is gone."""
        while self.outgoing:
            try:
                sent = self.socket.send(self.outgoing)
            except BlockingIOError:
                return True
            except OSError:
                return False
            del self.outgoing[:sent]
        return True


class ForkServer:
    """Has helpers forked on request, and clears up behind those that die.

    It ends when it has had neither helpers nor connections for `idle_seconds`, and when its forker has died.
    """

    def __init__(self, listener: socket.socket, forker: socket.socket, reports: int, idle_seconds: float) -> None:
        self._listener = listener
        self._forker = forker
        self._reports = reports
        self._idle_seconds = idle_seconds
        self._connections: dict[int, Connection] = {}
        self._serial = 0
        self._starting: dict[int, Attempt] = {}  # by its serial number, until the task's program runs
        self._queue: list[Attempt] = []  # prepared, for the forker, who takes one at a time
        self._forking: Attempt | None = None
        self._helpers: dict[int, list[str]] = {}  # pid of each, and the cgroups of its task
        self._serials: dict[int, int] = {}  # pid of each that is starting
        self._line = b""  # the beginning of a report whose end was not read yet
        os.set_blocking(reports, False)
        self._poller = select.poll()
        for descriptor in (listener.fileno(), reports):
            self._poller.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Serve until there is nobody left to serve."""
        idle_since = time.monotonic()
        while True:
            if self._helpers or self._starting or self._connections:
                idle_since, patience_ms = time.monotonic(), None
            else:
                left = self._idle_seconds - (time.monotonic() - idle_since)
                if left <= 0.0:
                    return
                patience_ms = int(left * 1000) + 1
            for descriptor, event in self._poller.poll(patience_ms):
                if descriptor == self._reports:
                    if not self._read_reports():
                        return
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._connections:
                    self._attend(self._connections[descriptor], event)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            if error.errno in records.NO_DESCRIPTOR:
                time.sleep(_FULL_SECONDS)  # whoever knocks goes on knocking, and would keep us busy
            return
        if not _is_same_user(accepted):
            accepted.close()
            return
        accepted.setblocking(False)
        self._connections[accepted.fileno()] = Connection(accepted)
        self._poller.register(accepted.fileno(), select.POLLIN)

    def _attend(self, connection: Connection, event: int) -> None:
        """Read requests, write answers, or notice that the agent is gone."""
        if event & select.POLLOUT:
            self._send(connection, b"")
        if not event & ~select.POLLOUT:
            return
        try:
            data = connection.socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.incoming += data
        if not data or len(connection.incoming) > _LINE_BYTES_MAX:
            self._drop(connection)
            return
        while (end := connection.incoming.find(b"\n")) >= 0:
            line = bytes(connection.incoming[:end])
            del connection.incoming[: end + 1]
            try:
                request = json.loads(line)
                self._spawn(connection, request["id"], request["spawn"])
            except (ValueError, TypeError, KeyError, RecursionError):
                self._drop(connection)
                return

    def _drop(self, connection: Connection) -> None:
        """Forget a connection; helpers that it asked for go on."""
        number = connection.socket.fileno()
        if number >= 0:
            self._poller.unregister(number)
            self._connections.pop(number, None)
            connection.socket.close()

    def _send(self, connection: Connection, data: bytes) -> None:
        number = connection.socket.fileno()
        if number < 0:
            return
        connection.outgoing += data
        if not connection.flush():
            self._drop(connection)
            return
        self._poller.modify(number, select.POLLIN | (select.POLLOUT if connection.outgoing else 0))

    def _answer(self, connection: Connection, number: object, answer: dict[str, Any]) -> None:
        self._send(connection, json.dumps({"id": number, **answer}).encode() + b"\n")

    def _spawn(self, connection: Connection, number: object, spec: Spec) -> None:
        """Have a helper forked; what it reports is the answer."""
        for attempt in self._starting.values():
            if attempt.directory == spec["directory"]:
                attempt.waiters.append((connection, number))
                return
        self._serial += 1
        attempt = Attempt(self._serial, spec)
        claimed = False
        try:
            record = attempt.claim()
            if record is None:
                claimed = True
                attempt.prepare()
        except StartError as error:
            if claimed:
                attempt.abandon()
            attempt.hand_over()
            attempt.close_go()
            self._answer(connection, number, {"error": error.facts})
            return
        if record is not None:
            attempt.hand_over()
            self._answer(connection, number, {"handle": record})
            return
        attempt.waiters.append((connection, number))
        self._starting[attempt.serial] = attempt
        self._queue.append(attempt)
        self._feed()

    def _feed(self) -> None:
        """Give the forker its next orders."""
        if self._queue and not self._forking:
            attempt = self._forking = self._queue.pop(0)
            try:
                send_orders(self._forker, attempt.orders, attempt.descriptors)
            except OSError:
                return  # the forker is dead, and the end of reports will say so
            attempt.hand_over()

    def _read_reports(self) -> bool:
        """Take note of what the forker and helpers say; False if there are none any more."""
        try:
            data = os.read(self._reports, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            verb, _, rest = line.partition(b" ")
            if verb == b"forked":
                self._on_forked(*map(int, rest.split()))
            elif verb == b"ended":
                self._on_ended(*map(int, rest.split()))
            elif verb == b"task":
                serial, helper, task = map(int, rest.split())
                self._starting[serial].release(helper, task)
            elif verb == b"started":
                self._conclude(int(rest), None)
            elif verb == b"failed":
                number, _, message = rest.partition(b" ")
                self._conclude(int(number), self._starting[int(number)].failure(message))
        return bool(data)

    def _on_forked(self, pid: int, error: int) -> None:
        attempt, self._forking = self._forking, None
        self._feed()
        if attempt is None:
            return
        if not pid:
            attempt.abandon()
            self._conclude(attempt.serial, ["fork", error, os.strerror(error)])
            return
        self._helpers[pid] = attempt.cgroups
        self._serials[pid] = attempt.serial

    def _on_ended(self, pid: int, status: int) -> None:
        serial, groups = self._serials.pop(pid, 0), self._helpers.pop(pid, [])
        if serial in self._starting:
            self._conclude(serial, ["helper", errno.ECHILD, "the helper died"])
        if status:
            leave_cgroup(groups)

    def _conclude(self, serial: int, error: list[Any] | None) -> None:
        """Tell everyone who asked how the start of an attempt went."""
        attempt = self._starting.pop(serial, None)
        if attempt is None:
            return
        attempt.close_go()
        answer = {"handle": attempt.record} if error is None else {"error": error}
        for connection, number in attempt.waiters:
            self._answer(connection, number, answer)


def _is_same_user(connection: socket.socket) -> bool:
    """Tell whether a process of our own user is at the other end; elsewhere the directory's mode has to do."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return bool(user == os.getuid())


def _set_limits() -> None:
    """Allow tasks many files, as far as it is ours to allow, and no core dumps."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _set_signals() -> None:
    """Disregard signals in the server and in helpers, but leave tasks the defaults.

    A handler that does nothing becomes the default again when a task's program starts; "ignored" would stay.
    """
    for number in signal.valid_signals():
        if number in _DISREGARDED:
            signal.signal(number, lambda *_: None)
        elif signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
