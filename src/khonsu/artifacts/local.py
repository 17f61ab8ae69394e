"""Artifacts that are files of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from khonsu.artifacts.faults import fault
from khonsu.artifacts.incoming import Incoming
from khonsu.artifacts.part import READ_BYTES
from khonsu.artifacts.source import Source
from khonsu.env import Env
from khonsu.errors import ArtifactError

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@asynccontextmanager
async def read_file(source: Source, *, env: Env) -> AsyncGenerator[Incoming, None]:
    """Open a file; it is always read from its beginning.

    Raises:
        ArtifactError: It is not there, is no plain file, or may not be read.

    """
    fd = await env.run_blocking(_open, source)
    try:
        total = os.fstat(fd).st_size
        yield Incoming(chunks=_chunks(fd, env), total_bytes=total)
    finally:
        os.close(fd)


async def _chunks(fd: int, env: Env) -> AsyncIterator[bytes]:
    while data := await env.run_blocking(os.read, fd, READ_BYTES):
        yield data


def _open(source: Source) -> int:
    path = Path(source.path)
    try:
        # Opening a device can do something by itself, so look first; look again at what was opened.
        _check(path.stat(), source)
        fd = os.open(path, _OPEN)
    except OSError as error:
        raise _unreadable(source, error) from error
    try:
        _check(os.fstat(fd), source)
    except ArtifactError:
        os.close(fd)
        raise
    return fd


def _check(status: os.stat_result, source: Source) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise fault(source.shown, "is not a plain file", hint="Directories, devices and pipes are no artifacts")
    # The kernel asks nobody who is root, and who submits a job must not read with root's eyes.
    if os.geteuid() == 0 and not status.st_mode & stat.S_IROTH:
        hint = "An agent that runs as root takes files that everybody may read: chmod o+r"
        raise fault(source.shown, "may not be read by everybody", hint=hint)


def _unreadable(source: Source, error: OSError) -> ArtifactError:
    hint = "The path is looked up on the node where the task runs"
    return fault(source.shown, f"cannot be read ({error.strerror})", hint=hint)
