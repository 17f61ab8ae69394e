"""The forker: a process that does nothing but fork helpers, so that it has next to no memory that they must copy.

Between two forks it touches as little as possible: each page that it writes is one more page of every helper.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from os import _exit, close

from .helper import run_helper
from .orders import DESCRIPTORS, Orders
from .processes import LINUX, everyone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

_CHUNK_BYTES = 65536
_LENGTH = struct.Struct("!I")
_LENGTH_BYTES = _LENGTH.size
_NUMBERS = struct.Struct(f"{DESCRIPTORS}i")
_ANCILLARY_BYTES = socket.CMSG_SPACE(_NUMBERS.size)
_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_INHERITED = not _FLAGS


def send_orders(channel: socket.socket, orders: bytes, descriptors: list[int]) -> None:
    """Have a helper forked; its descriptors can be closed then.

    Raises:
        OSError: The forker is gone.

    """
    data = _LENGTH.pack(len(orders)) + orders
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _NUMBERS.pack(*descriptors))]
    sent = channel.sendmsg([data], ancillary)
    channel.sendall(data[sent:])


class Forker:
    """Forks a helper for each order that comes through a channel, one after the other, until the channel ends.

    What happens is written to `reports`, a line at a time: `forked PID 0`, or `forked 0 ERROR` with the error's number,
    and `ended PID STATUS`. The lines of the helpers come through the same pipe.
    """

    def __init__(self, channel: socket.socket, reports: int, server: int) -> None:
        self._channel = channel
        self._number = channel.fileno()
        self._reports = reports
        self._known = {server}  # our children that are no strays: the server and the helpers
        self._pid = os.getpid()
        self._forking = False
        self._children_ended = False
        signal.signal(signal.SIGCHLD, self._on_child)

    def serve(self) -> NoReturn:
        """Fork what is asked for; never returns."""
        while True:
            data, ancillary, _, _ = self._channel.recvmsg(_CHUNK_BYTES, _ANCILLARY_BYTES, _FLAGS)
            if not data:
                os._exit(0)
            end = _LENGTH.unpack_from(data)[0] + _LENGTH.size
            while len(data) < end:
                more = self._channel.recv(min(_CHUNK_BYTES, end - len(data)))
                if not more:
                    os._exit(0)
                data += more
            self._fork(data, _NUMBERS.unpack(ancillary[0][2]))

    def _fork(self, data: bytes, descriptors: tuple[int, ...]) -> None:
        self._forking = True
        try:
            pid = os.fork()
        except OSError as error:
            os.write(self._reports, b"forked 0 %d\n" % (error.errno or 0))
        else:
            if not pid:
                _become_helper(self._number, data, descriptors, self._reports)
            self._known.add(pid)
            os.write(self._reports, b"forked %d 0\n" % pid)
        self._forking = False
        if self._children_ended:
            self._reap()
        for descriptor in descriptors:
            os.close(descriptor)

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        """Reap helpers that ended, and end what a dead one left behind; helpers inherit this, and it does nothing."""
        if os.getpid() != self._pid:
            return
        if self._forking:
            self._children_ended = True  # perhaps the very one whose pid is not known yet
        else:
            self._reap()

    def _reap(self) -> None:
        self._children_ended = strays = False
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                # What a stray leaves behind is a stray, too.
                strays = strays or status != 0 or pid not in self._known
                self._known.discard(pid)
                os.write(self._reports, b"ended %d %d\n" % (pid, status))
        except ChildProcessError:
            return
        except BrokenPipeError:
            os._exit(0)  # the server is dead; helpers do not need us
        if strays and LINUX:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Kill our children that are no helpers: tasks and theirs, whose helper died, come to us."""
        for process in everyone():
            if process.parent == self._pid and process.pid not in self._known and not process.zombie:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    continue


def _become_helper(channel: int, data: bytes, descriptors: tuple[int, ...], reports: int) -> NoReturn:
    try:
        close(channel)
        if _INHERITED:
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
        run_helper(Orders(data[_LENGTH_BYTES:], descriptors), reports)
    finally:
        _exit(1)  # never back into the forker's loop
