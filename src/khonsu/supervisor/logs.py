"""The output of a task: files that are rotated, with an index of time, and never a reason to wait."""

from __future__ import annotations

import os
import struct
import time

INDEX_ENTRY = struct.Struct("<qd")
"""Offset in the file, and the wall time in seconds at which what begins there was written."""

_INDEX_INTERVAL_SECONDS = 0.1
_INDEX_FREE_BYTES = 4096
_INDEX_SHARE = 4  # beyond the free bytes an index has at most a quarter of the size of its file


class LogWriter:
    """One stream: `stdout.0`, `stdout.1` and so on, of which the newest `files` are kept, each with `.idx` beside it.

    A line stays in one file where that is possible. What cannot be written is dropped and counted in `dropped`.
    """

    __slots__ = (
        "_directory", "_file", "_file_bytes", "_files", "_index", "_index_bytes", "_indexed_at", "_line_open", "_name",
        "_number", "_offset", "_torn", "dropped",
    )  # fmt: skip

    def __init__(self, directory: str, name: str, *, files: int, file_bytes: int) -> None:
        self._directory = directory
        self._name = name
        self._files = files
        self._file_bytes = file_bytes
        self._file = self._index = -1
        self._number = -1
        self._offset = self._index_bytes = 0
        self._indexed_at = 0.0
        self._line_open = self._torn = False
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Append output; errors of the disk only make `dropped` grow."""
        start = 0
        try:
            while start < len(data):
                self._have_room()
                end = self._cut(data, start)
                if end == start:
                    self._open(self._number + 1)
                    continue
                start += self._append(data, start, end)
        except OSError:
            self.dropped += len(data) - start
            self._torn = self._line_open

    def _have_room(self) -> None:
        """Open the file to go on with."""
        if self._number < 0:
            self._open(max(0, self._newest()))
            self._torn = self._offset > 0 and os.pread(self._file, 1, self._offset - 1) != b"\n"
        elif self._file < 0:
            self._open(self._number)
        if self._offset >= self._file_bytes:
            self._open(self._number + 1)
        if self._torn:
            # An earlier attempt ended, or something was lost, in the middle of a line: what comes now is not its rest.
            self._torn = False
            self._append(b"\n", 0, 1)

    def _cut(self, data: bytes, start: int) -> int:
        """Return where the part ends that goes to this file."""
        room = self._file_bytes - self._offset
        if len(data) - start <= room:
            return len(data)
        line_end = data.rfind(b"\n", start, start + max(0, room)) + 1
        if line_end > start:
            return line_end
        return start if self._offset > 0 and not self._line_open else start + max(1, room)

    def _append(self, data: bytes, start: int, end: int) -> int:
        written = os.write(self._file, data[start:end])
        now = time.time()
        allowed = _INDEX_FREE_BYTES + self._offset // _INDEX_SHARE
        due = abs(now - self._indexed_at) >= _INDEX_INTERVAL_SECONDS and self._index_bytes < allowed
        if due or self._index_bytes == 0:
            self._note(now)
        self._offset += written
        self._line_open = data[start + written - 1] != 0x0A
        return written

    def _note(self, now: float) -> None:
        """Add an entry to the index; a log without one can still be read."""
        try:
            self._index_bytes += os.write(self._index, INDEX_ENTRY.pack(self._offset, now))
            self._indexed_at = now
        except OSError:
            return

    def _newest(self) -> int:
        """Return the number of the newest file that an earlier attempt left, or -1."""
        numbers = self._numbers()
        return max(numbers, default=-1)

    def _numbers(self) -> list[int]:
        prefix = self._name + "."
        rests = [name[len(prefix) :] for name in os.listdir(self._directory) if name.startswith(prefix)]
        return [int(rest) for rest in rests if rest.isdigit()]

    def _open(self, number: int) -> None:
        """Go on in a file, and remove those that are too old."""
        path = f"{self._directory}/{self._name}.{number}"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        self.close()
        self._file = file
        self._offset = os.fstat(file).st_size
        self._line_open = False
        self._index = os.open(path + ".idx", flags, 0o600)
        # An entry that was cut by a full disk would shift all that follow.
        self._index_bytes = os.fstat(self._index).st_size // INDEX_ENTRY.size * INDEX_ENTRY.size
        os.ftruncate(self._index, self._index_bytes)
        self._number = number
        for old in self._numbers() if number >= self._files else ():
            if old <= number - self._files:
                _remove(f"{self._directory}/{self._name}.{old}")
                _remove(f"{self._directory}/{self._name}.{old}.idx")

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self._file, self._index):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._index = -1


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
