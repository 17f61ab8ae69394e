"""The cache: which artifacts there are, who uses them, and what has to go when the room runs out.

What is in memory belongs to the event loop; the disk is touched on threads (`khonsu.artifacts.directory`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import anyio
from attrs import define, field, frozen

from khonsu.artifacts.directory import Known, keep, objects_of, open_directory, parts_of, remove, write_known
from khonsu.artifacts.faults import fault
from khonsu.artifacts.incoming import Validator
from khonsu.artifacts.part import Part
from khonsu.artifacts.source import Wanted
from khonsu.env import Env

KNOWN_MAX: Final = 500
"""How many addresses without a digest are remembered; what servers say of so many fits into what is read again."""


@frozen(kw_only=True)
class CachedArtifact:
    """A whole, checked artifact in the cache; it stays there until it is released.

    A context manager that releases at its end. Releasing twice is releasing once.
    """

    path: Path
    sha256: str
    size_bytes: int
    name: str
    """The file name that its address suggests."""
    _release: Callable[[], None] = field(repr=False, eq=False)

    def release(self) -> None:
        """Let the cache remove it when it needs the room."""
        self._release()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Release it."""
        self.release()


@define
class _Object:
    size_bytes: int
    leases: int = 0


class Cache:
    """A directory of artifacts with a limit, for one process at a time.

    The limit counts everything, and holds whenever something is added; what is leased or on its way is never removed,
    and is the only thing that can exceed it. What was used least recently goes first, partial downloads before whole
    ones.
    """

    def __init__(self, directory: Path, *, limit_bytes: int, env: Env) -> None:
        """Name the directory; nothing is touched before `open`."""
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._env = env
        self._lock_fd = -1
        # Least recently used first.
        self._objects: dict[str, _Object] = {}
        self._parts: dict[str, int] = {}
        self._on_their_way: dict[str, int] = {}
        self._known: dict[str, Known] = {}
        # Adding and removing files take turns, so that what was just added under a name is not what is removed.
        self._disk = anyio.Lock()

    async def open(self) -> None:
        """Lock the directory and read what is in it; make it if it is not there.

        Raises:
            ArtifactError: Another process has it open.
            UnsafeFile: Others may write into it.

        """
        found = await self._env.run_blocking(open_directory, self.directory)
        self._lock_fd = found.lock_fd
        self._objects = {digest: _Object(size) for digest, size in found.objects.items()}
        self._parts = found.parts
        self._known = found.known
        await self._make_room()

    def close(self) -> None:
        """Let go of the directory, if it is open."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def part_path(self, key: str) -> Path:
        """Return where a download on its way is kept."""
        return parts_of(self.directory) / key

    def _object_path(self, digest: str) -> Path:
        return objects_of(self.directory) / digest

    def known(self, key: str) -> Known | None:
        """Return what was last found at an address without a digest, if it is still here."""
        found = self._known.get(key)
        return found if found is not None and found.sha256 in self._objects else None

    async def lease(self, digest: str, name: str) -> CachedArtifact | None:
        """Return an artifact if it is here, and keep it until it is released."""
        found = self._objects.get(digest)
        if found is None:
            return None
        leased = self._leased(digest, found, name)
        used_at = int(self._env.now() * 1e9)
        try:
            await self._env.run_blocking(os.utime, leased.path, ns=(used_at, used_at))
        except FileNotFoundError:
            # Somebody emptied the cache by hand.
            leased.release()
            await self.drop(digest)
            return None
        except BaseException:
            leased.release()
            raise
        return leased

    async def drop(self, digest: str) -> None:
        """Remove an object that is gone or damaged; the next one who wants it fetches it again."""
        async with self._disk:
            self._objects.pop(digest, None)
            await self._env.run_blocking(self._object_path(digest).unlink, missing_ok=True)

    def begin(self, key: str) -> None:
        """Keep what is there of a download from being removed: it goes on."""
        self._on_their_way[key] = self._parts.pop(key, 0)

    async def expect(self, key: str, size_bytes: int, shown: str) -> None:
        """Count a download that goes on as large as it will be, and make room for it.

        Raises:
            ArtifactError: The disk has no room for it.

        """
        missing_bytes = size_bytes - self._on_their_way[key]
        self._on_their_way[key] = size_bytes
        await self._make_room()
        free_bytes = (await self._env.run_blocking(shutil.disk_usage, self.directory)).free
        if free_bytes < missing_bytes:
            found = f"the disk of {self.directory} has no room: {missing_bytes} bytes needed, {free_bytes} free"
            raise fault(shown, found, hint="Make room, or put the agent's data elsewhere", retryable=True)

    async def add(self, wanted: Wanted, part: Part, validator: Validator) -> CachedArtifact:
        """Take in a download that is whole and checked, and return it leased."""
        digest = part.digest()
        async with self._disk:
            await self._env.run_blocking(keep, part, self.directory, self._env)
            self._on_their_way.pop(wanted.key, None)
            added = self._objects.setdefault(digest, _Object(part.size_bytes))
            leased = self._leased(digest, added, wanted.source.name)
            try:
                if wanted.sha256 is None:
                    await self._note(wanted.key, Known(digest, validator))
            except BaseException:
                leased.release()
                raise
        try:
            await self._make_room()
        except BaseException:
            leased.release()
            raise
        return leased

    async def _note(self, key: str, known: Known) -> None:
        """Remember what was found at an address."""
        self._known.pop(key, None)
        self._known[key] = known
        for oldest in list(self._known)[:-KNOWN_MAX]:
            del self._known[oldest]
        await self._env.run_blocking(write_known, self.directory, dict(self._known), self._env)

    async def end(self, key: str, kept_bytes: int) -> None:
        """Keep what came of a download that is not whole for the next one, or, with no bytes to keep, remove it."""
        async with self._disk:
            if self._on_their_way.pop(key, None) is None:
                return
            if kept_bytes:
                self._parts[key] = kept_bytes
            else:
                await self._env.run_blocking(self.part_path(key).unlink, missing_ok=True)

    async def _make_room(self) -> None:
        """Remove what was used least recently until the rest fits within the limit."""
        async with self._disk:
            doomed = list(self._doomed())
            if not doomed:
                return
            gone = [key for key, known in self._known.items() if known.sha256 not in self._objects]
            for key in gone:
                del self._known[key]
            await self._env.run_blocking(remove, doomed)
            if gone:
                await self._env.run_blocking(write_known, self.directory, dict(self._known), self._env)

    def _doomed(self) -> Iterator[Path]:
        """Take what has to go out of the books, and yield its files."""
        objects = sum(found.size_bytes for found in self._objects.values())
        excess = objects + sum(self._parts.values()) + sum(self._on_their_way.values()) - self.limit_bytes
        for key in list(self._parts):
            if excess > 0:
                excess -= self._parts.pop(key)
                yield self.part_path(key)
        for digest, found in list(self._objects.items()):
            if excess > 0 and not found.leases:
                del self._objects[digest]
                excess -= found.size_bytes
                yield self._object_path(digest)

    def _leased(self, digest: str, found: _Object, name: str) -> CachedArtifact:
        """Count one more user of an object, which is now the one used last."""
        if self._objects.pop(digest, None) is not None:
            self._objects[digest] = found
        found.leases += 1
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                found.leases -= 1

        path = self._object_path(digest)
        return CachedArtifact(path=path, sha256=digest, size_bytes=found.size_bytes, name=name, release=release)
