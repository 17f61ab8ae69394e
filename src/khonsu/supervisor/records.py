"""The files of one attempt of a task, and how they are written."""

from __future__ import annotations

import json
import os

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
    Reservation(directory, name, json.dumps(record).encode()).publish()


class Reservation:
    """A file that has its room on the disk but not its name yet.

    With it the end of a task can be recorded even when the disk is full by then.
    """

    __slots__ = ("_path", "_temporary")

    def __init__(self, directory: str, name: str, content: bytes = b" " * _RESERVED_BYTES) -> None:
        """Write the content under another name.

        Raises:
            OSError: It cannot be written.

        """
        self._path = f"{directory}/{name}"
        self._temporary = f"{self._path}.new"
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            while content:
                content = content[os.write(descriptor, content) :]
        except OSError:
            self.cancel()
            raise
        finally:
            os.close(descriptor)

    def fill(self, record: bytes) -> None:
        """Put the record, as JSON, into the room that was kept for it."""
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, record.ljust(_RESERVED_BYTES))
        finally:
            os.close(descriptor)

    def publish(self) -> None:
        """Give the file its name."""
        os.rename(self._temporary, self._path)

    def cancel(self) -> None:
        """Remove the file."""
        remove_file(self._temporary)


def remove_file(path: str) -> None:
    """Remove a file if it is there."""
    if os.access(path, os.F_OK):  # mostly it is not there, and an exception is dear
        try:
            os.unlink(path)
        except OSError:
            return
