"""A disk for SQLite, in memory, that forgets at a power cut what was not waited for, and fails on demand.

It is a VFS of SQLite (through apsw), so that the real SQLite and the real store run on it. Each run of a program has a
VFS of its own: what a dead one still does happens on a copy that nobody else sees.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from itertools import count
from typing import Any, Final

import apsw
from attrs import define, field

from khonsu.testing.simulation.files import SECTOR_BYTES

_POWERSAFE_OVERWRITE: Final = 0x1000
_numbers = count(1)


@define(eq=False)
class _Inode:
    """A file: what is in it, and what was done to it since it was last safe."""

    now: bytearray = field(factory=bytearray)
    safe: bytearray = field(factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(factory=list)
    """Writes at an offset, and truncations (None) to a length."""

    def sync(self) -> None:
        """Make what is in it safe."""
        for offset, data in self.pending:
            _do(self.safe, offset, data)
        self.pending.clear()


class SimDatabaseDisk:
    """The part of a host's disk where its databases are.

    Args:
        chance: What a power cut takes, and which operation fails.

    """

    def __init__(self, chance: random.Random) -> None:
        """Begin empty."""
        self._chance = chance
        self.files: dict[str, _Inode] = {}
        self._safe_files: dict[str, _Inode] = {}
        self._vfs: SimVFS | None = None
        self.lies = 0.0
        """The share of the times when the disk only says that something is safe."""
        self.fails = 0.0
        """The share of operations that end with an I/O error."""
        self.full = False
        """Whether a file can not grow."""
        self.on_write: Callable[[str], None] = lambda _: None
        """Called before every write, truncation, sync and removal, with its name and that of the file."""

    def database(self) -> Callable[..., Any]:
        """Return the database class for one run of a program (`SQLiteStore(database=...)`)."""
        from playhouse.apsw_ext import APSWDatabase

        self.fence()
        self._vfs = SimVFS(self)
        return partial(APSWDatabase, vfs=self._vfs.name)

    def fence(self) -> None:
        """Let what has files open have no effect any more; what it wrote is still there."""
        if self._vfs is not None:
            self._vfs.detach()
            self._vfs = None

    def power_cut(self) -> None:
        """Lose what was not waited for, or some of it: writes as wholes, or by sectors; names, too."""
        self.fence()
        left: dict[str, _Inode] = {}
        for name in sorted({*self.files, *self._safe_files}):
            now, safe = self.files.get(name), self._safe_files.get(name)
            kept = now if now is safe or self._chance.random() < 0.5 else safe
            if kept is not None:
                data = self._cut(kept)
                left[name] = _Inode(data, bytearray(data))
        self.files, self._safe_files = left, dict(left)

    def copy(self) -> dict[str, bytes]:
        """Return a copy of all files, as they are between two transactions."""
        return {name: bytes(inode.now) for name, inode in self.files.items()}

    def put_back(self, files: Mapping[str, bytes]) -> None:
        """Hold a copy instead of what is there; all of it is safe."""
        self.fence()
        self.files = {name: _Inode(bytearray(data), bytearray(data)) for name, data in files.items()}
        self._safe_files = dict(self.files)

    def _cut(self, inode: _Inode) -> bytearray:
        data = bytearray(inode.safe)
        for offset, written in inode.pending:
            fate = self._chance.random()
            if fate < 0.4:
                _do(data, offset, written)
            elif fate < 0.6 and written is not None:
                for start in range(0, len(written), SECTOR_BYTES):
                    if self._chance.random() < 0.5:
                        _do(data, offset + start, written[start : start + SECTOR_BYTES])
        return data

    # What the VFS asks for.

    def attempt(self, operation: str, name: str) -> None:
        """Take note of an operation, and fail it by chance."""
        if operation != "read":
            self.on_write(f"{operation} {name}")
        if self.fails and self._chance.random() < self.fails:
            raise apsw.IOError("as the simulation wants it")

    def sync(self, name: str, inode: _Inode) -> None:
        """Make a file safe; with a log, its folder, as SQLite does it on Unix."""
        if self.lies and self._chance.random() < self.lies:
            return
        inode.sync()
        if name.endswith(("-journal", "-wal")):
            self._safe_files = dict(self.files)

    def remove(self, name: str, *, safely: bool) -> None:
        """Remove a file."""
        if self.files.pop(name, None) is None:
            raise apsw.IOError("there is no such file")
        if safely:
            self._safe_files.pop(name, None)

    def randomness(self, size: int) -> bytes:
        """Return what SQLite takes for chance."""
        return self._chance.randbytes(size)


class SimVFS(apsw.VFS):
    """The disk as one run of a program sees it."""

    # A connection of a dead run may close its files when everything is collected, this object's fields before it.
    disk: SimDatabaseDisk | None = None

    def __init__(self, disk: SimDatabaseDisk) -> None:
        self.disk = disk
        self.name = f"khonsu-simulation-{next(_numbers)}"
        self._open: list[SimFile] = []
        super().__init__(self.name, base="")

    def detach(self) -> None:
        """Let it have no effect any more."""
        self.disk = None
        for file in self._open:
            file.detach()
        self._open.clear()

    def xOpen(self, name: Any, flags: list[int]) -> SimFile:  # type: ignore[override]  # anything with its methods will do
        path = str(name.filename()) if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        if self.disk is None or name is None:
            return SimFile(None, path, _Inode())
        inode = self.disk.files.get(path)
        if inode is None:
            if not flags[0] & apsw.SQLITE_OPEN_CREATE:
                raise apsw.CantOpenError(path)
            inode = self.disk.files[path] = _Inode()
        file = SimFile(self.disk, path, inode)
        self._open.append(file)
        return file

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: FBT001
        if self.disk is not None:
            disk = self.disk
            disk.attempt("remove", name)
            if self.disk is not None:  # a power cut in between
                disk.remove(name, safely=syncdir)

    def xAccess(self, name: str, flags: int) -> bool:
        return self.disk is not None and name in self.disk.files

    def xFullPathname(self, name: str) -> str:
        return name if name.startswith("/") else f"/{name}"

    def xRandomness(self, size: int) -> bytes:
        return self.disk.randomness(size) if self.disk is not None else bytes(size)

    def xSleep(self, microseconds: int) -> int:
        return microseconds

    def xCurrentTime(self) -> float:
        return 2_461_042.5

    def xCurrentTimeInt64(self) -> int:
        return 212_634_072_000_000


class SimFile:
    """An open file."""

    def __init__(self, disk: SimDatabaseDisk | None, name: str, inode: _Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._level = 0

    def detach(self) -> None:
        """Go on with a copy that nobody else sees."""
        self._disk = None
        self._inode = _Inode(bytearray(self._inode.now))

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk is not None and self._disk.fails:
            self._disk.attempt("read", self._name)
        return bytes(self._inode.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        disk = self._disk
        if disk is not None:
            disk.attempt("write", self._name)
            if disk.full and offset + len(data) > len(self._inode.now):
                raise apsw.FullError("as the simulation wants it")
        kept = bytes(data)
        _do(self._inode.now, offset, kept)
        if disk is not None:
            self._inode.pending.append((offset, kept))

    def xTruncate(self, length: int) -> None:
        if self._disk is not None:
            self._disk.attempt("truncate", self._name)
            self._inode.pending.append((length, None))
        _do(self._inode.now, length, None)

    def xSync(self, flags: int) -> None:
        if self._disk is not None:
            disk = self._disk
            disk.attempt("sync", self._name)
            if self._disk is not None:  # a power cut in between
                disk.sync(self._name, self._inode)

    def xFileSize(self) -> int:
        return len(self._inode.now)

    def xLock(self, level: int) -> None:
        self._level = max(self._level, level)

    def xUnlock(self, level: int) -> None:
        self._level = level

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, operation: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return _POWERSAFE_OVERWRITE

    def xClose(self) -> None:
        self._disk = None


def _do(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write data at an offset; without data, make the content so long."""
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data
