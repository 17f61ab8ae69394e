"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from khonsu.env import sync
from khonsu.errors import UnsafeFile

FILE_MODE = 0o600
PUBLIC_MODE = 0o644
DIRECTORY_MODE = 0o700
FILE_BYTES_MAX = 1 << 20

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without blocking: a FIFO in the file's place must not hold us up.
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateDirectory:
    """A directory whose files are private to their owner; a context manager that holds it open.

    All names are single components and are resolved beneath the open directory, so that nobody can put another one in
    its place halfway. All calls block. Several processes may write at once; threads of one process must not write the
    same name at once.
    """

    def __init__(self, path: Path | str, fsync: Callable[[int], None] = sync) -> None:
        """Name the directory; it is made, for its owner only, when the block is entered.

        Args:
            path: The directory.
            fsync: Waits for the disk: `Env.fsync`.

        """
        self.path = Path(path)
        self._fsync = fsync
        self._fd = -1

    def __enter__(self) -> Self:
        """Open the directory.

        Raises:
            UnsafeFile: Everybody may put files into it, or it belongs to somebody else.

        """
        self.path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self._fd = os.open(self.path, _OPEN_DIRECTORY)
        try:
            status = os.fstat(self._fd)
            _check_owner(self.path, status)
            if status.st_mode & stat.S_IWOTH:
                raise UnsafeFile(str(self.path), "can be written by everybody", hint=f"Run: chmod o-w {self.path}")
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the directory."""
        os.close(self._fd)
        self._fd = -1

    def read(self, name: str, *, public: bool = False) -> bytes | None:
        """Return a file's bytes, or None where there is none.

        Args:
            name: The file's name.
            public: Whether everybody may read (not write) it.

        Raises:
            UnsafeFile: It is no plain file, belongs to somebody else, or others may use it.

        """
        path = self.path / _component(name)
        try:
            fd = os.open(name, _OPEN_FILE, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafeFile(str(path), "is a symbolic link", hint="Put the file itself in its place") from error
            raise
        try:
            _check_file(path, os.fstat(fd), PUBLIC_MODE if public else FILE_MODE)
            with os.fdopen(fd, "rb", closefd=False) as file:
                data = file.read(FILE_BYTES_MAX + 1)
        finally:
            os.close(fd)
        if len(data) > FILE_BYTES_MAX:
            raise UnsafeFile(str(path), f"is larger than {FILE_BYTES_MAX} bytes", hint="It is not one of Khonsu's")
        return data

    def write(self, name: str, data: bytes, *, mode: int = FILE_MODE) -> None:
        """Replace a file, durably: after a crash it holds either the old bytes or the new ones."""
        with self._temporary(name, data, mode) as temporary:
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        self._fsync(self._fd)

    def create(self, name: str, data: bytes, *, mode: int = FILE_MODE) -> bool:
        """Make a file, durably, unless it is there already; return whether it was made.

        Of several processes at once exactly one makes it.
        """
        with self._temporary(name, data, mode) as temporary:
            try:
                os.link(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False)
            except FileExistsError:
                return False
        self._fsync(self._fd)
        return True

    @contextlib.contextmanager
    def _temporary(self, name: str, data: bytes, mode: int) -> Iterator[str]:
        """Write a file under a passing name that is gone when the block ends, whichever way."""
        temporary = f".{_component(name)}.{os.getpid()}.tmp"
        with contextlib.suppress(FileNotFoundError):  # of a process that was killed and had our number
            os.unlink(temporary, dir_fd=self._fd)
        fd = os.open(temporary, _CREATE_FILE, mode, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(file.fileno(), mode)  # whatever the umask takes away
                file.write(data)
                file.flush()
                self._fsync(file.fileno())
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)


def _check_file(path: Path, status: os.stat_result, allowed: int) -> None:
    """Check that a file is a plain one, is ours, and that others may do no more with it than `allowed`."""
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeFile(str(path), "is not a plain file")
    _check_owner(path, status)
    mode = stat.S_IMODE(status.st_mode)
    if mode & ~allowed & (stat.S_IRWXG | stat.S_IRWXO):
        raise UnsafeFile(str(path), f"can be used by others (mode {mode:04o})", hint=f"Run: chmod {allowed:o} {path}")


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        hint = f"Run as that user, or: chown {os.geteuid()} {path}"
        raise UnsafeFile(str(path), f"belongs to user {status.st_uid}, not to {os.geteuid()}", hint=hint)


def _component(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file")
    return name
