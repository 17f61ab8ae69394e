"""A download on its way: a file that grows, and the digest of what is in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from khonsu.security.files import FILE_MODE

READ_BYTES = 1 << 20


class Part:
    """A partial file. All calls block, and only one may be under way at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; what is there already is taken into the digest."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        try:
            while data := os.read(self._fd, READ_BYTES):
                self._hash.update(data)
                self.size_bytes += len(data)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Close the file; what is in it stays."""
        os.close(self._fd)

    def append(self, data: bytes) -> None:
        """Write behind what is there: all of it, or, where that fails, nothing."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            self._cut()
            raise
        self._hash.update(data)
        self.size_bytes += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self._cut()

    def digest(self) -> str:
        """Return the SHA-256 of what is there, in hex."""
        return self._hash.hexdigest()

    def sync(self, fsync: Callable[[int], None]) -> None:
        """Make what is there durable, by `Env.fsync`."""
        fsync(self._fd)

    def _cut(self) -> None:
        """Make the file as long as what is known of it."""
        os.ftruncate(self._fd, self.size_bytes)
        os.lseek(self._fd, self.size_bytes, os.SEEK_SET)
