"""Where an agent keeps what, and the lock that makes its data directory its own.

identity.json       who the node is; private
journal             what has become of its allocations
lock                held for as long as an agent runs
supervisor/         of the processes that keep tasks alive
artifacts/          the cache
drivers/NAME/       of a driver
allocations/ID/     TASK/ are the tasks' own folders; .khonsu/TASK/ has logs/ and a folder for each attempt
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import frozen

from khonsu.env import Env
from khonsu.errors import Conflict, UnsafeFile

# Tasks of other users go through these folders, but nobody else sees what is in them.
PASSAGE_MODE: Final = 0o711
PRIVATE_MODE: Final = 0o700
TASK_MODE: Final = 0o755
INNER: Final = ".khonsu"
NAME_LENGTH_MAX: Final = 255


def is_name(text: str) -> bool:
    """Return whether a text can be the name of an allocation's or a task's folder, and of nothing else."""
    return 0 < len(text) <= NAME_LENGTH_MAX and text.isascii() and text[0] != "." and not {"/", "\0"} & set(text)


@frozen
class Layout:
    """The paths below a data directory."""

    root: Path

    @property
    def journal(self) -> Path:
        """Return where the journal is."""
        return self.root / "journal"

    @property
    def supervisor(self) -> Path:
        """Return the folder of what keeps processes alive."""
        return self.root / "supervisor"

    @property
    def artifacts(self) -> Path:
        """Return the folder of the artifact cache."""
        return self.root / "artifacts"

    @property
    def allocations(self) -> Path:
        """Return the folder of all allocations."""
        return self.root / "allocations"

    def driver(self, name: str) -> Path:
        """Return the folder of a driver."""
        return self.root / "drivers" / name

    # One text each: these are asked for several times for every task, and a path is slow to join.

    def allocation(self, key: str) -> Path:
        """Return the folder of an allocation."""
        return Path(f"{self.root}/allocations/{key}")

    def task(self, key: str, task: str) -> Path:
        """Return the working directory of a task."""
        return Path(f"{self.root}/allocations/{key}/{task}")

    def inner(self, key: str) -> Path:
        """Return the folder of an allocation that is not for its tasks."""
        return Path(f"{self.root}/allocations/{key}/{INNER}")

    def logs(self, key: str, task: str) -> Path:
        """Return where the output of a task is."""
        return Path(f"{self.root}/allocations/{key}/{INNER}/{task}/logs")

    def attempt(self, key: str, task: str, attempt: int) -> Path:
        """Return where the files of one attempt are."""
        return Path(f"{self.root}/allocations/{key}/{INNER}/{task}/{attempt}")

    def tasks(self, key: str) -> tuple[str, ...]:
        """Return the tasks that an allocation's folder knows of. Blocks."""
        return _names(self.inner(key))

    def attempts(self, key: str) -> tuple[Path, ...]:
        """Return the folders of all attempts of an allocation that are there. Blocks."""
        return tuple(
            self.inner(key) / task / name
            for task in self.tasks(key)
            for name in _names(self.inner(key) / task)
            if name.isdigit()
        )

    def kept(self) -> tuple[str, ...]:
        """Return the allocations that have a folder. Blocks."""
        return _names(self.allocations)

    def make_task(self, key: str, task: str, attempt: int, owner: int | None) -> None:
        """Make the folders of an attempt. Blocks.

        Args:
            key: The allocation.
            task: The task.
            attempt: The attempt.
            owner: The user id of the task, where it is not the agent's.

        Raises:
            OSError: The disk does not allow it.

        """
        home = f"{self.root}/allocations/{key}"
        _make(home, PASSAGE_MODE)
        if _make(f"{home}/{task}", TASK_MODE) and owner is not None:
            os.chown(f"{home}/{task}", owner, -1)
        inner = f"{home}/{INNER}"
        for folder in (inner, f"{inner}/{task}", f"{inner}/{task}/logs", f"{inner}/{task}/{attempt}"):
            _make(folder, PRIVATE_MODE)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _make(folder: str, mode: int) -> bool:
    """Make a folder; return whether it was not there."""
    try:
        os.mkdir(folder, mode)  # noqa: PTH102 - a path object would cost more than the call
    except FileExistsError:
        return False
    if mode != PRIVATE_MODE:
        os.chmod(folder, mode)  # noqa: PTH101 - whatever the umask takes away; of what is private it takes nothing
    return True


@asynccontextmanager
async def own(root: Path, env: Env) -> AsyncGenerator[Layout, None]:
    """Own a data directory for the length of a block; it is made if it is not there.

    Raises:
        Conflict: Another agent runs on it.
        UnsafeFile: It cannot be used, or belongs to somebody else.

    """
    lock = await env.run_blocking(_lock, root)
    try:
        yield Layout(root)
    finally:
        os.close(lock)


def _lock(root: Path) -> int:
    """Make and lock the directory; return the descriptor of the lock."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if root.stat().st_uid not in (0, os.geteuid()):
            raise UnsafeFile(str(root), f"belongs to user {root.stat().st_uid}, not to {os.geteuid()}")
        root.chmod(PASSAGE_MODE)
        _make(f"{root}/allocations", PASSAGE_MODE)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        hint = "Give the agent a data directory that it may write to"
        raise UnsafeFile(str(error.filename or root), f"cannot be used: {error.strerror}", hint=hint) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise Conflict(
            f"another agent (process {holder}) runs on the data directory {root}",
            hint="Stop it, or give each agent a data directory of its own",
        ) from None
    os.fchmod(lock, 0o600)
    with suppress(OSError):  # a full disk keeps no agent from its tasks; the number is for people
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock
