"""Trees of folders that somebody else has made: measured and removed, whatever they are.

They may be deeper than a path can say or a stack can follow, closed to everybody, full of links, and changed meanwhile.
So nothing here goes by a path, follows a link, or calls itself; two folders are open at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import define

OPEN_MODE: Final = 0o700
FOLDERS_MAX: Final = 1000
"""How many folders are noted at a time."""
BLOCK_BYTES: Final = 512

_TAKEN: Final = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def disk_bytes(root: Path, *, enough_bytes: int) -> int:
    """Return how much disk a tree takes, or something above `enough_bytes` once it is known to be more. Blocks.

    Folders that are closed are opened to their owner. What cannot be looked at, or was moved meanwhile, is left out.

    Raises:
        OSError: There is no such folder, or it cannot be opened.

    """
    here = _open(root)
    above: list[tuple[os.stat_result, list[str]]] = []
    try:
        total, folders = _measure(here)
        while total <= enough_bytes and (folders or above):
            if folders:
                try:
                    below = _open(folders.pop(), here)
                except OSError:
                    continue
                above.append((os.fstat(here), folders))
                os.close(here)
                here = below
                size_bytes, folders = _measure(here)
                total += size_bytes
            else:
                came_from, folders = above.pop()
                up = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = up
                if not os.path.samestat(os.fstat(here), came_from):
                    break
    finally:
        os.close(here)
    return total


def _measure(folder: int) -> tuple[int, list[str]]:
    """Return how much disk the entries of a folder take, and the names of its folders on the same file system."""
    total, folders = 0, list[str]()
    device = os.fstat(folder).st_dev
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile, or where something is mounted that is dead
            if not stat.S_ISDIR(status.st_mode):
                total += status.st_blocks * BLOCK_BYTES // max(1, status.st_nlink)  # its other names count the rest
            elif status.st_dev == device:
                total += status.st_blocks * BLOCK_BYTES
                folders.append(entry.name)
    return total, folders


def remove_tree(root: Path) -> None:
    """Remove a tree, if it is there; a link in its place is removed, and not followed. Blocks.

    What is mounted in it stays, and all else goes. Can be called again after it was killed.

    Raises:
        OSError: Something of it cannot be removed.

    """
    try:
        folder = _open(root)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        root.unlink(missing_ok=True)
        return
    try:
        _Removal(folder).run()
    finally:
        os.close(folder)
    root.rmdir()


@define
class _Removal:
    """Empties a folder: each folder that is found below moves up to the top, and is emptied in its turn."""

    root: int
    steps: int = 0
    """How much was removed or moved."""
    names: int = 0
    """How many names were given."""
    failure: OSError | None = None
    """The first thing that could not be done in this round."""

    def run(self) -> None:
        """Remove all that can be removed."""
        while True:
            before, self.failure = self.steps, None
            for name in self._clear(self.root):
                with self._step():
                    self._remove(name)
            if self.steps == before:
                break
        if self.failure is not None:
            raise self.failure

    def _clear(self, folder: int) -> list[str]:
        """Remove what is no folder, and return the names of those that are, or of some of them."""
        folders: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                    if len(folders) == FOLDERS_MAX:
                        break
                else:
                    with self._step():
                        os.unlink(entry.name, dir_fd=folder)
        return folders

    def _remove(self, name: str) -> None:
        """Remove a folder at the top, or bring what is in it one step nearer to its end."""
        moved = self._move(name, self.root)  # what is mounted cannot be moved: then it is not emptied
        folder = _open(moved, self.root)
        try:
            for below in self._clear(folder):
                with self._step():
                    self._move(below, folder)
        finally:
            os.close(folder)
        os.rmdir(moved, dir_fd=self.root)

    def _move(self, name: str, folder: int) -> str:
        """Move a folder to the top, and return its name there."""
        while True:
            self.names += 1
            moved = f"removed-{self.names}"
            try:
                os.rename(name, moved, src_dir_fd=folder, dst_dir_fd=self.root)
                return moved
            except PermissionError:
                if not _make_open(name, folder):
                    raise
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        """Count a step, or note that it failed."""
        try:
            yield
            self.steps += 1
        except FileNotFoundError:
            pass  # somebody else has removed it
        except OSError as error:
            self.failure = self.failure or error


def _open(name: Path | str, folder: int | None = None) -> int:
    """Open a folder, also one that is closed to its owner.

    Raises:
        NotADirectoryError: It is something else, such as a link.
        OSError: It cannot be opened.

    """
    try:
        opened = os.open(name, _FOLDER, dir_fd=folder)
    except PermissionError:
        if not _make_open(name, folder):
            raise
        opened = os.open(name, _FOLDER, dir_fd=folder)
    if os.fstat(opened).st_mode & OPEN_MODE != OPEN_MODE:
        with contextlib.suppress(OSError):
            os.fchmod(opened, OPEN_MODE)
    return opened


def _make_open(name: Path | str, folder: int | None) -> bool:
    """Open a folder to its owner, following no link; return whether that changed something."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_mode & OPEN_MODE == OPEN_MODE:
            return False
        os.chmod(name, OPEN_MODE, dir_fd=folder, follow_symlinks=False)
    except (OSError, ValueError, NotImplementedError):  # not everywhere, and not of a link that took its place
        return False
    return True
