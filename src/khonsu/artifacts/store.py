"""The store of artifacts: fetch by address, share, check, cache, place."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskStatus

from khonsu.artifacts.cache import Cache, CachedArtifact
from khonsu.artifacts.downloader import Downloader
from khonsu.artifacts.faults import fault
from khonsu.artifacts.flights import Flights
from khonsu.artifacts.incoming import Progress
from khonsu.artifacts.networks import parse_networks
from khonsu.artifacts.placing import DamagedCopy, components, place
from khonsu.artifacts.source import Wanted, parse_wanted
from khonsu.env import Env
from khonsu.errors import ArtifactError
from khonsu.scopes import Lifetime

CACHE_BYTES: Final = 10 * 2**30
ARTIFACT_BYTES_MAX: Final = 2 * 2**30
TIMEOUT_SECONDS: Final = 600.0
DOWNLOADS_MAX: Final = 4


class ArtifactStore(Lifetime):
    """Artifacts of one agent, in a directory with a limit; an async context manager.

    Any number of tasks may fetch at once: what several want is downloaded once. Leaving the block stops all
    downloads; what came of them is resumed later.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        env: Env,
        limit_bytes: int = CACHE_BYTES,
        artifact_bytes_max: int = ARTIFACT_BYTES_MAX,
        timeout_seconds: float = TIMEOUT_SECONDS,
        downloads_max: int = DOWNLOADS_MAX,
        ca_file: Path | str | None = None,
        networks: Iterable[str] = (),
    ) -> None:
        """Describe the store; nothing is touched before the block is entered.

        Args:
            directory: Where it keeps what it fetched; made if it is not there, and for this store alone.
            env: Time and threads.
            limit_bytes: How much it keeps; only what is in use can exceed it.
            artifact_bytes_max: How large one artifact may be; never more than `limit_bytes`.
            timeout_seconds: How long one download may take.
            downloads_max: How many downloads run at once; others wait, and their time does not run.
            ca_file: Certificates (PEM) that are trusted in addition to the system's.
            networks: Where artifacts may be fetched from besides the public internet, such as `192.168.1.0/24`.

        Raises:
            ValueError: One of the networks is none.

        """
        super().__init__()
        self._env = env
        self._cache = Cache(Path(directory), limit_bytes=limit_bytes, env=env)
        self._downloader = Downloader(
            self._cache,
            env=env,
            bytes_max=min(artifact_bytes_max, limit_bytes),
            ca_file=Path(ca_file) if ca_file is not None else None,
            networks=parse_networks(networks),
        )
        self._timeout_seconds = timeout_seconds
        self._slots = anyio.Semaphore(downloads_max)
        self._flights: Flights

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open the cache and make downloads until cancelled; this is what the block of `async with` does.

        Raises:
            ArtifactError: Another store has the directory open.
            UnsafeFile: Others may write into the directory.

        """
        try:
            await self._cache.open()
            async with anyio.create_task_group() as tasks:
                self._flights = Flights(tasks, self._download)
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._cache.close()

    async def fetch(
        self, source: str, sha256: str | None = None, *, progress: Progress | None = None
    ) -> CachedArtifact:
        """Return an artifact, from the cache or from its address, checked and kept until it is released.

        Without a digest the server is always asked whether the artifact changed. Cancelling it stops the download,
        unless somebody else waits for it. Nothing is tried twice: that is for the caller, as `retryable` says.

        Args:
            source: `https://`, or with a digest also `http://` and `file://`.
            sha256: The digest that the artifact must have, in hex.
            progress: Called with the bytes that are there, and the total where it is known.

        Raises:
            DigestMismatch: It is not what was pinned.
            ArtifactError: It cannot be had, or not in this way; `retryable` says whether later it may.

        """
        wanted = parse_wanted(source, sha256)
        while True:
            if wanted.sha256 is not None:
                cached = await self._lease(wanted.sha256, wanted)
                if cached is not None:
                    return cached
            async with self._flights.join(wanted, progress or _silent) as flight:
                if flight.landed is not None:
                    cached = await self._lease(flight.landed.sha256, wanted)
                    if cached is not None:
                        return cached
                elif flight.error is not None and flight.wanted.source == wanted.source:
                    raise flight.error
                # Otherwise another address for the same digest failed, which says nothing about ours.

    async def _lease(self, digest: str, wanted: Wanted) -> CachedArtifact | None:
        try:
            return await self._cache.lease(digest, wanted.source.name)
        except OSError as error:
            raise self._disk_fault(wanted, error) from error

    def _disk_fault(self, wanted: Wanted, error: OSError) -> ArtifactError:
        found = f"cannot be kept in {self._cache.directory} ({error.strerror or error})"
        return fault(wanted.source.shown, found, hint="Look at the agent's disk", retryable=True)

    async def place(self, artifact: CachedArtifact, directory: Path | int, destination: str | None = None) -> str:
        """Copy an artifact into a task's directory, executable; return where, relative to it.

        Args:
            artifact: What `fetch` returned, not yet released.
            directory: The task's directory, a path or an open descriptor. Nothing outside of it is touched, whatever
                links there are in it.
            destination: A path relative to it. None, or an end in `/`, takes the name that the address suggests.

        Raises:
            ArtifactError: The destination is not beneath the directory, the disk is full, or the cached copy is
                damaged (it is dropped, and `retryable`).

        """
        parts = components(destination, artifact.name)
        try:
            await self._env.run_blocking(place, artifact.path, artifact.sha256, directory, parts)
        except DamagedCopy:
            await self._cache.drop(artifact.sha256)
            error = ArtifactError(f"the cached copy of {artifact.name} was damaged; it was dropped")
            error.retryable = True
            raise error from None
        return "/".join(parts)

    async def _download(self, wanted: Wanted, progress: Progress) -> CachedArtifact:
        """Make one download, when its turn has come, within its time."""
        shown = wanted.source.shown
        async with self._slots:
            with anyio.move_on_after(self._timeout_seconds):
                try:
                    return await self._downloader.download(wanted, progress)
                except OSError as error:
                    raise self._disk_fault(wanted, error) from error
        raise fault(shown, f"took longer than {self._timeout_seconds:g} s", retryable=True)


def _silent(done: int, total: int | None) -> None:
    """Tell nobody."""
