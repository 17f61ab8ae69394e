"""Artifacts that are files of this machine.

The kernel asks nobody who is root, and who submits a job must not read with root's eyes. So an agent that runs as root
goes to a file step by step, and asks at each folder and at the file itself what everybody may do.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from khonsu.artifacts.faults import fault
from khonsu.artifacts.incoming import Incoming
from khonsu.artifacts.part import READ_BYTES
from khonsu.artifacts.source import Source
from khonsu.env import Env
from khonsu.errors import ArtifactError

_LINKS_MAX = 40  # as the kernel
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
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
    try:
        if os.geteuid() == 0:
            return _open_as_anybody(source)
        return _open_plain(source.path, source, None)
    except OSError as error:
        raise _unreadable(source, error) from error


def _open_plain(path: str, source: Source, folder: int | None, more: int = 0) -> int:
    """Open a plain file, given how it is found from a folder."""
    # Opening a device can do something by itself, so look first; look again at what was opened.
    _check_plain(os.stat(path, dir_fd=folder, follow_symlinks=not more), source)
    fd = os.open(path, _OPEN | more, dir_fd=folder)
    try:
        _check_plain(os.fstat(fd), source)
    except ArtifactError:
        os.close(fd)
        raise
    return fd


def _open_as_anybody(source: Source) -> int:
    """Open a file that everybody may read, in folders that everybody may pass; links are followed, step by step."""
    names = source.path.split("/")[::-1]
    links = 0
    folder = os.open("/", _FOLDER)
    try:
        while True:
            name = names.pop()
            if not os.fstat(folder).st_mode & stat.S_IXOTH:
                raise _private(source)
            status = os.stat(name or ".", dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                if (links := links + 1) > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=folder)
                names += target.split("/")[::-1]
                below = os.open("/" if target.startswith("/") else ".", _FOLDER, dir_fd=folder)
            elif names:
                below = os.open(name or ".", _FOLDER, dir_fd=folder)
            else:
                break
            os.close(folder)
            folder = below
        fd = _open_plain(name or ".", source, folder, os.O_NOFOLLOW)
    finally:
        os.close(folder)
    if not os.fstat(fd).st_mode & stat.S_IROTH:
        os.close(fd)
        raise _private(source)
    return fd


def _check_plain(status: os.stat_result, source: Source) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise fault(source.shown, "is not a plain file", hint="Directories, devices and pipes are no artifacts")


def _private(source: Source) -> ArtifactError:
    hint = "An agent that runs as root takes files that everybody may read: chmod o+r, and o+x for its folders"
    return fault(source.shown, "may not be read by everybody", hint=hint)


def _unreadable(source: Source, error: OSError) -> ArtifactError:
    hint = "The path is looked up on the node where the task runs"
    return fault(source.shown, f"cannot be read ({error.strerror})", hint=hint)
