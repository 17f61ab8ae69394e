"""The agent's side of the fork server: find it or start it, and ask it to start tasks."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, SOL_SOCKET
from socket import socket as Socket  # noqa: N812 - it is a class
from typing import Any

import anyio

from khonsu import supervisor
from khonsu.drivers.faults import passing
from khonsu.drivers.programs import why_not_for_this_machine
from khonsu.env import Env
from khonsu.errors import DriverError
from khonsu.supervisor.records import PROTOCOL

_CONNECTIONS_MAX = 16
_ANSWER_BYTES_MAX = 65536
_START_SECONDS_MAX = 30.0
_TRIES = 5
_SOCKET_PATH_BYTES_MAX = 100
_PEER = struct.Struct("3i")


class _Line:
    """One connection: a request, then its answer, then the next request.

    On a plain socket: for each answer that is waited for, `anyio.connect_unix`'s stream asks the system six times
    instead of twice, and that is a tenth of what the start of a task costs.
    """

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._answers = bytearray()

    async def call(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Have a task started.

        Raises:
            OSError: The server is gone.

        """
        await self._send(json.dumps({"id": 0, "spawn": spec}).encode() + b"\n")
        while (end := self._answers.find(b"\n")) < 0:
            await anyio.wait_readable(self.socket.fileno())
            await self._receive()
        line = bytes(self._answers[:end])
        del self._answers[: end + 1]
        return dict(json.loads(line))

    async def _send(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                await anyio.wait_writable(self.socket.fileno())

    async def _receive(self) -> None:
        try:
            data = self.socket.recv(_ANSWER_BYTES_MAX)
        except BlockingIOError:
            return
        if not data or len(self._answers) > _ANSWER_BYTES_MAX:
            raise ConnectionResetError("the fork server ended the connection")
        self._answers += data

    def close(self) -> None:
        """End the connection; nobody waits for an answer any more."""
        self.socket.close()


class ForkServerClient:
    """Speaks with the fork server of a folder, and starts one where there is none.

    Requests run concurrently, on a few connections that are kept: they also tell the server that its agent is there.
    """

    def __init__(self, directory: Path, *, env: Env, idle_seconds: float = 30.0) -> None:
        """Note where the server is; nothing is started before the first request.

        Args:
            directory: Private to the user; an agent that speaks another protocol has another folder below it.
            env: Threads and time.
            idle_seconds: How long a server stays that has neither tasks nor an agent.

        """
        self._directory = directory / f"v{PROTOCOL}"
        self._env = env
        self._idle_seconds = idle_seconds
        self._idle: list[_Line] = []
        self._limiter = anyio.Semaphore(_CONNECTIONS_MAX)
        self._starting = anyio.Lock()

    async def spawn(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Return the server's answer: `handle`, or `error` with step, number and text.

        Asking again is safe, since a directory names an attempt that is started once.

        Raises:
            DriverError: There is no server, and none can be started.

        """
        async with self._limiter:
            for _ in range(_TRIES):
                line = self._idle.pop() if self._idle else await self._connect()
                try:
                    answer = await line.call(spec)
                except OSError:
                    line.close()
                    await self.aclose()  # the others lead to the same dead server
                except BaseException:
                    # An answer that nobody reads would be taken for that of the next request.
                    line.close()
                    raise
                else:
                    self._idle.append(line)
                    return answer
        raise passing(f"the fork server dies as soon as it is asked; see {self._directory / 'server.log'}")

    async def aclose(self) -> None:
        """Close the connections; the server goes on while it has tasks."""
        lines, self._idle = self._idle, []
        for line in lines:
            line.close()

    async def _connect(self) -> _Line:
        try:
            try:
                return await self._dial()
            except (FileNotFoundError, ConnectionError):
                pass
            async with self._starting:
                for _ in range(_TRIES):
                    try:
                        return await self._dial()
                    except (FileNotFoundError, ConnectionError):
                        await self._env.run_blocking(self._start)
                        await self._env.sleep(0.0)
        except OSError as error:
            raise passing(f"the fork server cannot be reached: {error}") from error
        raise passing(f"the fork server does not stay; see {self._directory / 'server.log'}")

    async def _dial(self) -> _Line:
        async with _short_path(self._directory, self._env) as path:
            dialled = _connected(path)
        option = _peer_option()
        if option is not None:
            _, user, _ = _PEER.unpack(dialled.getsockopt(SOL_SOCKET, option, _PEER.size))
            if user != os.getuid():
                dialled.close()
                raise DriverError(f"{self._directory} is served by another user ({user})")
        return _Line(dialled)

    def _start(self) -> None:
        """Start a server, which leaves us; returns when somebody serves the folder."""
        if not sys.executable:
            raise DriverError("there is no Python interpreter to start the fork server with (sys.executable is empty)")
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        program = Path(supervisor.__file__).parent / "__main__.py"
        # Isolated, without site: a clean heap. UTF-8 whatever the locale: paths and arguments go through unchanged.
        command = [
            sys.executable,
            "-I",
            "-S",
            "-X",
            "utf8",
            str(program),
            str(self._directory),
            str(self._idle_seconds),
        ]
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
        try:
            done = subprocess.run(
                command, env=kept, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, timeout=_START_SECONDS_MAX, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise passing(f"the fork server does not start: {error}") from error
        if done.returncode:
            reason = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise passing(f"the fork server does not start (exit code {done.returncode}): {reason}")


def _connected(path: str) -> Socket:
    """Return a socket that is connected, which a local one is at once or not at all."""
    made = Socket(AF_UNIX, SOCK_STREAM)
    made.setblocking(False)
    try:
        made.connect(path)
    except BlockingIOError as error:
        made.close()
        raise ConnectionRefusedError(error.errno, "too many wait for the fork server already") from error
    except BaseException:
        made.close()
        raise
    return made


def _peer_option() -> int | None:
    import socket

    return getattr(socket, "SO_PEERCRED", None)


@asynccontextmanager
async def _short_path(directory: Path, env: Env) -> AsyncGenerator[str, None]:
    """Yield a path of the folder's socket that fits into a socket address, which has room for some 100 bytes."""
    path = directory / "socket"
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        yield str(path)
    elif sys.platform == "linux":
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}/socket"
        finally:
            os.close(descriptor)
    else:
        folder = await env.run_blocking(tempfile.TemporaryDirectory, prefix="kh", dir="/tmp")  # noqa: S108 - short, 0700
        try:
            link = Path(folder.name) / "d"
            link.symlink_to(directory)
            yield str(link / "socket")
        finally:
            await env.run_blocking(folder.cleanup)


RETRYABLE = frozenset({errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.EDQUOT, errno.ETIME})
"""Errors that may be gone when the same start is tried again."""


def start_error(error: list[Any], spec: Mapping[str, Any]) -> DriverError:
    """Return what a refusal of the fork server means, in words."""
    step, number, text = error
    executable = str(spec["executable"])
    if step == "exec":
        message = _exec_message(number, text, executable)
    elif step == "cwd":
        message = f"cannot enter the working directory {spec['cwd']}: {text}"
    elif step == "user":
        message = f"cannot run as another user: {text}"
    elif step == "lease":
        message = "not started, since the node's lease has run out"
    elif step == "cgroup":
        message = f"cannot limit the resources of {executable}: {text}"
    elif step == "directory":
        message = f"cannot write to {spec['directory']}: {text}"
    else:
        message = f"cannot start {executable} ({step}): {text}"
    failure = DriverError(message)
    failure.retryable = number in RETRYABLE or step == "helper"
    return failure


def _exec_message(number: int, text: str, executable: str) -> str:
    if number == errno.ENOENT and Path(executable).exists():
        return f"cannot run {executable}: its interpreter is not there (see its first line, or its dynamic loader)"
    if number == errno.ENOENT:
        return f"there is no {executable}"
    if number == errno.EACCES:
        return f"{executable} is not executable for the user who would run it"
    if number == errno.ENOEXEC:
        return f"{executable} is no program for this machine: {why_not_for_this_machine(executable)}"
    return f"cannot run {executable}: {text}"
