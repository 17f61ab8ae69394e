"""Placing: a copy of a cached artifact in a task's directory, beneath it and nowhere else.

A copy, never a hard link: tasks may write to their files, and the next task is owed the bytes that were checked. Where
the file system can, the kernel shares the blocks until then (`copy_file_range`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from khonsu.artifacts.part import READ_BYTES
from khonsu.errors import ArtifactError

PLACED_MODE: Final = 0o755
FOLDER_MODE: Final = 0o755

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_RANGE_BYTES: Final = 1 << 30
# Where two files cannot share or where the kernel is old; the bytes then pass through this process.
_NO_COPY_RANGE: Final = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


class DamagedCopy(Exception):
    """The bytes in the cache are no longer those that were checked."""


def components(destination: str | None, name: str) -> tuple[str, ...]:
    """Return the folders and the file name of a destination.

    Args:
        destination: Relative to the task's directory. None, or an end in `/`, takes the artifact's own name.
        name: The artifact's own name.

    Raises:
        ArtifactError: It is absolute, climbs up, or cannot be a file name.

    """
    text = destination or ""
    *folders, last = text.split("/")
    kept = (*(folder for folder in folders if folder not in ("", ".")), last or name)
    if text.startswith("/") or ".." in kept or kept[-1] == "." or "\0" in text:
        raise ArtifactError(
            f"the artifact's destination {destination!r} leads out of the task's directory or names no file",
            hint="Write a path relative to the task's directory, such as bin/tool",
        )
    return kept


def place(path: Path, digest: str, root: Path | int, destination: tuple[str, ...]) -> None:
    """Copy a file beneath a directory, executable, and check the copy before it gets its name. Blocks.

    Replaces what has the name. Killed at any point it leaves the old file or the new one, whole. It is not made
    durable: after a crash of the machine a task is prepared anew.

    Args:
        path: The cached artifact.
        digest: Its SHA-256.
        root: The task's directory: a path, or an open descriptor.
        destination: What `components` returned.

    Raises:
        DamagedCopy: The cached artifact is no longer what it was.
        ArtifactError: A folder on the way is a link or a file, or the disk is full.

    """
    shown = "/".join(destination)
    try:
        with _folder(root, destination[:-1]) as folder, _temporary(folder, destination[-1]) as (fd, temporary):
            with path.open("rb") as source:
                _copy(source.fileno(), fd)
            if _digest(fd) != digest:
                raise DamagedCopy
            os.fchmod(fd, PLACED_MODE)
            os.rename(temporary, destination[-1], src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise _unplaceable(shown, error) from error


@contextmanager
def _folder(root: Path | int, folders: tuple[str, ...]) -> Iterator[int]:
    """Open a folder beneath a directory component by component, following no link; make what is missing."""
    current = os.dup(root) if isinstance(root, int) else os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in folders:
            with suppress(FileExistsError):
                os.mkdir(name, FOLDER_MODE, dir_fd=current)
            below = os.open(name, _OPEN_FOLDER, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


@contextmanager
def _temporary(folder: int, name: str) -> Iterator[tuple[int, str]]:
    """Open a file under a passing name that belongs to the final one, so that nothing is left twice."""
    temporary = f".khonsu-{hashlib.sha256(name.encode()).hexdigest()[:16]}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    fd = os.open(temporary, _CREATE, PLACED_MODE, dir_fd=folder)
    try:
        yield fd, temporary
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)


def _copy(source: int, target: int) -> None:
    """Copy all bytes, by the kernel where it can."""
    try:
        while hasattr(os, "copy_file_range") and os.copy_file_range(source, target, _COPY_RANGE_BYTES):
            pass
    except OSError as error:
        if error.errno not in _NO_COPY_RANGE:
            raise
    # What the kernel did not copy; both offsets stand where it stopped.
    while data := os.read(source, READ_BYTES):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(target, rest) :]


def _digest(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    found = hashlib.sha256()
    while data := os.read(fd, READ_BYTES):
        found.update(data)
    return found.hexdigest()


def _unplaceable(shown: str, error: OSError) -> ArtifactError:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        made = ArtifactError(
            f"the artifact cannot be placed at {shown}: a folder on the way is a link or no folder",
            hint="Give it another destination",
        )
    elif error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
        made = ArtifactError(
            f"the artifact cannot be placed at {shown}: there is a folder of that name",
            hint="Give it another destination",
        )
    else:
        made = ArtifactError(f"the artifact cannot be placed at {shown}: {error.strerror}")
        made.retryable = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOENT)
    return made
