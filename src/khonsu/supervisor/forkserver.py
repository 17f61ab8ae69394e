"""The fork server: a small process that forks helpers for an agent, and outlives it.

It listens on a socket in its own directory, for its own user only. Requests and answers are one JSON object a line;
any number of requests may be under way on a connection, and `id` says which one is answered.
"""

from __future__ import annotations

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
from .attempt import Attempt, StartError, Step
from .cgroups import leave_cgroup
from .helper import run_helper
from .processes import LINUX, become_reaper, everyone, name_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .child import Spec

SOCKET = "socket"
LOCK = "lock"
LOG = "server.log"

_LINE_BYTES_MAX = 16 * 2**20
_CHUNK_BYTES = 2**18
_DATAGRAM_BYTES = 8192
_FILES_MAX = 65536
_DISREGARDED = {
    signal.SIGCHLD,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGXFSZ,
}
_FIRST_FREE = 3  # after standard input, output and error


def main(arguments: Sequence[str]) -> int:
    """Serve a directory in the background, unless another server does; return when it is being served."""
    directory, idle_seconds = arguments
    try:
        os.setsid()
    except PermissionError:
        pass  # we lead a group already: as good
    os.closerange(_FIRST_FREE, 65536)
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
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    if os.fork():
        os._exit(0)  # whoever started us sees that the socket is there
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (null, 1), (log, 2)):
        os.dup2(source, target)
    _set_limits()
    _set_signals()
    become_reaper()
    name_process(b"khonsu-fork")
    gc.collect()
    gc.freeze()  # so that a helper's collector leaves the memory alone that it shares with us
    ForkServer(listener, float(idle_seconds)).serve()
    return 0


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
    """Forks helpers on request, and clears up behind those that die.

    It ends when it has had neither helpers nor connections for `idle_seconds`.
    """

    def __init__(self, listener: socket.socket, idle_seconds: float) -> None:
        self._listener = listener
        self._idle_seconds = idle_seconds
        self._connections: dict[int, Connection] = {}
        self._helpers: dict[int, list[str]] = {}  # pid of each, and the cgroups of its task
        self._starting: dict[int, Attempt] = {}  # by the pid of the helper, until the task's program runs
        self._poller = select.poll()
        self._wake, self._waker = os.pipe()
        # Datagrams: many helpers write to one end, and each report stays in one piece.
        self._reports, self._report = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for descriptor in (self._wake, self._waker, self._reports.fileno()):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for descriptor in (listener.fileno(), self._wake, self._reports.fileno()):
            self._poller.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Serve until there is nobody left to serve."""
        idle_since = time.monotonic()
        while True:
            if self._helpers or self._connections:
                idle_since, patience_ms = time.monotonic(), None
            else:
                left = self._idle_seconds - (time.monotonic() - idle_since)
                if left <= 0.0:
                    return
                patience_ms = int(left * 1000) + 1
            for descriptor, event in self._poller.poll(patience_ms):
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                    self._reap()
                elif descriptor == self._reports.fileno():
                    self._read_reports()
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif descriptor in self._connections:
                    self._attend(self._connections[descriptor], event)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
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
        """Fork a helper; what it reports is the answer."""
        for attempt in self._starting.values():
            if attempt.directory == spec["directory"]:
                attempt.waiters.append((connection, number))
                return
        attempt = Attempt(spec)
        claimed = False
        try:
            record = attempt.claim()
            if record is not None:
                self._answer(connection, number, {"handle": record})
                attempt.close_ours()
                return
            claimed = True
            attempt.prepare()
            with Step("fork"):
                pid = os.fork()
        except StartError as error:
            if claimed:
                attempt.abandon()
            attempt.close_ours()
            attempt.close_go()
            self._answer(connection, number, {"error": error.facts})
            return
        if not pid:
            try:
                run_helper(attempt, self._report.fileno())
            finally:
                os._exit(1)  # never back into the server's loop
        attempt.close_ours()
        attempt.waiters.append((connection, number))
        self._helpers[pid] = spec["cgroup"]["groups"] if spec["cgroup"] else []
        self._starting[pid] = attempt

    def _read_reports(self) -> None:
        while True:
            try:
                helper, verb, rest = self._reports.recv(_DATAGRAM_BYTES).split(b" ", 2)
            except BlockingIOError:
                return
            pid = int(helper)
            attempt = self._starting.get(pid)
            if attempt is None:
                continue
            if verb == b"task":
                attempt.release(pid, int(rest))
            elif verb == b"started":
                self._conclude(pid, {"handle": attempt.record})
            else:
                self._conclude(pid, {"error": attempt.failed(rest)})

    def _conclude(self, pid: int, answer: dict[str, Any]) -> None:
        """Tell everyone who asked how the start of an attempt went."""
        attempt = self._starting.pop(pid)
        attempt.close_go()
        for connection, number in attempt.waiters:
            self._answer(connection, number, answer)

    def _reap(self) -> None:
        """Take note of helpers that ended, and end what a dead one left behind."""
        strays = False
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                groups = self._helpers.pop(pid, None)
                if pid in self._starting:
                    self._read_reports()  # a short task's helper has reported and ended before we look
                if pid in self._starting:
                    self._conclude(pid, {"error": ["helper", errno.ECHILD, "the helper died"]})
                if groups and status:
                    leave_cgroup(groups)
                # What a stray leaves behind is a stray, too.
                strays = strays or groups is None or status != 0
        except ChildProcessError:
            return
        if strays and LINUX:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill our children that are no helpers: tasks and theirs, whose helper died, come to us."""
        me = os.getpid()
        for process in everyone():
            if process.parent == me and process.pid not in self._helpers and not process.zombie:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue


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
