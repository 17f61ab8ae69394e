"""A disk of real files that forgets at a power cut what was not waited for.

The files are in a folder of the machine that runs the simulation. What a program has waited for (`Env.fsync`) is kept
aside: the bytes of a file, the entries of a folder. A power cut puts the folder back to that, with a random part of
what came after: entries may be old or new, and of the bytes each sector may.

Files are known by their inode numbers; on a file system that gives them out again at once, a new file may be taken for
the old one. `/dev/shm` is none of these.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Final, TypeAlias

from attrs import define, field, frozen

SECTOR_BYTES: Final = 512


@frozen
class _File:
    """A file of an image."""

    mode: int
    data: bytes


@frozen
class Folder:
    """A folder of an image."""

    mode: int
    entries: dict[str, _Image]


_Image: TypeAlias = _File | Folder


@define
class _Safe:
    """What of a file or a folder survives."""

    image: _File | None = None
    entries: dict[str, int] = field(factory=dict)
    """By name, the inode numbers of what a folder lists."""


class FileDisk:
    """The files of a host below a folder.

    Args:
        root: The folder; it is made.
        chance: What a power cut takes.

    """

    def __init__(self, root: Path, chance: random.Random) -> None:
        """Begin with an empty folder."""
        root.mkdir(parents=True)
        self.root = root
        self._chance = chance
        self._safe: dict[int, _Safe] = {}
        self.lies = 0.0
        """The share of the times when the disk only says that something is safe."""
        self.fails = 0.0
        """The share of the times when what was waited for ends with an I/O error."""
        self.full = False
        """Whether there is no room: seen when it is waited for, as on a disk that gives room late."""

    def fsync(self, descriptor: int) -> None:
        """Take note that what an open file or folder holds is safe.

        Raises:
            OSError: It is not, as a fault wants it.

        """
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.fails and self._chance.random() < self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if not self.lies or self._chance.random() >= self.lies:
            self.keep(descriptor)

    def keep(self, descriptor: int) -> None:
        """Take note that what an open file or folder holds is safe, whatever is wrong with the disk."""
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._safe[status.st_ino] = _Safe(entries={one.name: one.inode() for one in os.scandir(descriptor)})
        else:
            self._safe[status.st_ino] = _Safe(_File(status.st_mode, _content(descriptor, status.st_size)))

    def power_cut(self) -> None:
        """Lose what was not waited for, or some of it."""
        self.put_back(self._cut_folder(self.root))

    def copy(self) -> Folder:
        """Return a copy of all files."""
        return _copied(self.root)

    def put_back(self, image: Folder) -> None:
        """Hold what an image says instead of all that is there; all of it is safe then."""
        for entry in os.scandir(self.root):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108
        self._safe.clear()
        self._lay_out(self.root, image)

    def _cut_folder(self, folder: Path) -> Folder:
        """Return what is left of a folder."""
        status = folder.stat()
        safe = self._safe.get(status.st_ino)
        before = safe.entries if safe is not None else {}
        there = {entry.name: entry for entry in os.scandir(folder)}
        entries: dict[str, _Image] = {}
        for name in sorted({*there, *before}):
            entry = there.get(name)
            old = before.get(name)
            if entry is not None and (entry.inode() == old or self._chance.random() < 0.5):
                left = self._cut_entry(folder / name, entry.inode())
            else:
                left = self._old(old) if old is not None else None
            if left is not None:
                entries[name] = left
        return Folder(status.st_mode, entries)

    def _cut_entry(self, path: Path, inode: int) -> _Image | None:
        """Return what is left of something whose name is there."""
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            return self._cut_folder(path)
        if not stat.S_ISREG(status.st_mode):
            return None
        safe = self._safe.get(inode)
        old = safe.image.data if safe is not None and safe.image is not None else b""
        return _File(status.st_mode, self._mixed(old, path.read_bytes()))

    def _old(self, inode: int) -> _Image | None:
        """Return what a name stood for that was put elsewhere, or away."""
        safe = self._safe.get(inode)
        if safe is None:
            return None
        return safe.image if safe.image is not None else Folder(stat.S_IFDIR | 0o700, {})

    def _mixed(self, old: bytes, new: bytes) -> bytes:
        """Return one of the things that may be left of a file: its length is that of either, and so is each sector."""
        if old == new:
            return new
        length = self._chance.choice((len(old), len(new)))
        mixed = bytearray(old[:length].ljust(length, b"\0"))
        for start in range(0, length, SECTOR_BYTES):
            end = min(start + SECTOR_BYTES, length)
            fresh = new[start:end]
            if fresh != mixed[start:end] and self._chance.random() < 0.5:
                mixed[start : start + len(fresh)] = fresh
        return bytes(mixed)

    def _lay_out(self, folder: Path, image: Folder) -> None:
        """Make what an image says; all of it is safe then."""
        safe = _Safe()
        for name, left in image.entries.items():
            path = folder / name
            if isinstance(left, Folder):
                path.mkdir()
                path.chmod(stat.S_IMODE(left.mode))
                self._lay_out(path, left)
                safe.entries[name] = path.stat().st_ino
            else:
                path.write_bytes(left.data)
                path.chmod(stat.S_IMODE(left.mode))
                inode = path.stat().st_ino
                self._safe[inode] = _Safe(left)
                safe.entries[name] = inode
        self._safe[folder.stat().st_ino] = safe


def _copied(folder: Path) -> Folder:
    """Return an image of a folder as it is now."""
    entries: dict[str, _Image] = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            entries[path.name] = _copied(path)
        elif stat.S_ISREG(status.st_mode):
            entries[path.name] = _File(status.st_mode, path.read_bytes())
    return Folder(folder.stat().st_mode, entries)


def _content(descriptor: int, size: int) -> bytes:
    """Return the bytes of an open file, wherever its position is and whatever it was opened for."""
    again = os.open(_path(descriptor), os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(again, size, 0)
    finally:
        os.close(again)


def _path(descriptor: int) -> str | bytes:
    """Return the path of an open file."""
    if hasattr(fcntl, "F_GETPATH"):  # macOS
        return fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")
    return f"/proc/self/fd/{descriptor}"
