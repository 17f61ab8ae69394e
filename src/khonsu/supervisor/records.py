"""The files of one attempt of a task, and how they are written."""

from __future__ import annotations

import errno
import json
import os
import time

from .processes import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
"""Of the messages and of the files; it only changes when old agents or helpers could not understand each other."""

LOCK = "lock"
STARTED = "helper.json"
ENDED = "exit.json"
CONTROL = "control"

_RESERVED_BYTES = 512
NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # what passes when others close some
_PAUSE_SECONDS = 0.05


def read_record(directory: str, name: str) -> dict[str, Any] | None:
    """Return a record, or None if there is none (or only what a power cut left of one)."""
    path = f"{directory}/{name}"
    if not os.access(path, os.F_OK):
        return None
    try:
        record = json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(directory: str, name: str, record: dict[str, Any]) -> None:
    """Write a record so that a reader sees all of it or nothing.

    Raises:
        OSError: It cannot be written; no trace of it is left.

    """
    reserve(directory, name, json.dumps(record).encode())
    os.rename(f"{directory}/{name}.new", f"{directory}/{name}")


def reserve(directory: str, name: str, content: bytes = b" " * _RESERVED_BYTES) -> None:
    """Give a record its room on the disk, but not its name yet; so it can be written even when the disk is full.

    Raises:
        OSError: There is no room.

    """
    path = f"{directory}/{name}.new"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError:
        remove_file(path)
        raise
    finally:
        os.close(descriptor)


def fill(directory: str, name: str, record: bytes) -> None:
    """Put a record, as JSON, into the room that was reserved for it, and give it its name.

    Waits where the machine has no descriptor left: nobody else will say what is in it.

    Raises:
        OSError: The room or the directory is gone.

    """
    path = f"{directory}/{name}"
    descriptor = _open_patiently(f"{path}.new")
    try:
        os.write(descriptor, record.ljust(_RESERVED_BYTES))
    finally:
        os.close(descriptor)
    os.rename(f"{path}.new", path)


def _open_patiently(path: str) -> int:
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in NO_DESCRIPTOR:
                raise
        time.sleep(_PAUSE_SECONDS)


def remove_file(path: str) -> None:
    """Remove a file if it is there."""
    if os.access(path, os.F_OK):  # mostly it is not there, and an exception is dear
        try:
            os.unlink(path)
        except OSError:
            return


def forget(directory: str) -> None:
    """Remove what an attempt that did not start left behind, but for the lock that others may wait for."""
    for name in (STARTED, CONTROL, f"{ENDED}.new"):
        remove_file(f"{directory}/{name}")
