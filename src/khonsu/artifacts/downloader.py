"""One download: from an address, through a partial file, into the cache."""

from __future__ import annotations

import errno
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio

from khonsu.artifacts.cache import KNOWN_MAX, Cache, CachedArtifact
from khonsu.artifacts.faults import fault, mismatch
from khonsu.artifacts.incoming import Ask, Incoming, Progress, Validator, check_size, receive
from khonsu.artifacts.local import read_file
from khonsu.artifacts.networks import Network
from khonsu.artifacts.part import Part
from khonsu.artifacts.source import Wanted
from khonsu.env import Env
from khonsu.errors import ArtifactError

_DISK_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Downloader:
    """Makes downloads. Those of different keys may run at once, those of one key may not."""

    def __init__(
        self, cache: Cache, *, env: Env, bytes_max: int, ca_file: Path | None, networks: Sequence[Network]
    ) -> None:
        """Take the cache, the largest size that is accepted, and what to trust besides the system's and the public."""
        self._cache = cache
        self._env = env
        self._bytes_max = bytes_max
        self._ca_file = ca_file
        self._networks = networks
        self._tls: ssl.SSLContext | None = None
        # Of which version the partial files are. Not kept on disk: after a restart only a digest can vouch for one.
        self._validators: dict[str, Validator] = {}

    async def download(self, wanted: Wanted, progress: Progress) -> CachedArtifact:
        """Make a download and return what it brought, leased.

        Without a digest, what was there last is returned if the server says that it did not change.

        Raises:
            ArtifactError: It failed; what came is kept if a later download can go on from there.
            OSError: The disk failed.

        """
        known = self._cache.known(wanted.key)
        held = await self._cache.lease(known.sha256, wanted.source.name) if known is not None else None
        try:
            async with self._part(wanted) as part:
                whole = known.validator if known is not None and held is not None else None
                validator = await self._fill(wanted, part, whole, progress)
                if validator is not None:
                    with anyio.CancelScope(shield=True):
                        added = await self._cache.add(wanted, part, validator)
                    if held is not None:
                        held.release()  # what was there before has no user
                    return added
        except BaseException:
            if held is not None:
                held.release()
            raise
        if held is None:
            raise fault(wanted.source.shown, "the server says that nothing changed, though there was nothing")
        return held

    @asynccontextmanager
    async def _part(self, wanted: Wanted) -> AsyncGenerator[Part, None]:
        """Open what came of an earlier download; afterwards keep what is worth it, if it is still a part by then."""
        self._cache.begin(wanted.key)
        part: Part | None = None
        keep = True
        try:
            part = await self._env.run_blocking(Part, self._cache.part_path(wanted.key))
            yield part
        except (ArtifactError, OSError) as error:
            keep = error.errno not in _DISK_FULL if isinstance(error, OSError) else error.retryable
            raise
        finally:
            vouched = wanted.sha256 is not None or wanted.key in self._validators
            with anyio.CancelScope(shield=True):
                await self._cache.end(wanted.key, part.size_bytes if part is not None and keep and vouched else 0)
                if part is not None:
                    await self._env.run_blocking(part.close)

    async def _fill(self, wanted: Wanted, part: Part, whole: Validator | None, progress: Progress) -> Validator | None:
        """Fetch what is missing of a part and check it; return its version, or None where the whole did not change."""
        while True:
            ask = Ask(
                pinned=wanted.sha256 is not None,
                offset=part.size_bytes,
                part=self._validators.get(wanted.key, Validator()),
                whole=whole,
            )
            async with self._open(wanted, ask) as incoming:
                if incoming.unchanged:
                    return None
                self._remember(wanted.key, incoming.validator)
                if incoming.total_bytes is not None:
                    check_size(incoming.total_bytes, self._bytes_max, wanted.source.shown)
                    await self._cache.expect(wanted.key, incoming.total_bytes, wanted.source.shown)
                await receive(
                    incoming,
                    part,
                    shown=wanted.source.shown,
                    bytes_max=self._bytes_max,
                    progress=progress,
                    env=self._env,
                )
            found = part.digest()
            if wanted.sha256 in (None, found):
                self._validators.pop(wanted.key, None)
                return incoming.validator
            if not incoming.offset:
                # Of a file of this machine the right digest is what shows that it is known already.
                told = None if wanted.source.scheme == "file" else found
                raise mismatch(wanted.source.shown, expected=wanted.sha256 or "", found=told)
            # The first half may be of another version, or was torn by a crash of the machine: once more, from zero.
            await self._env.run_blocking(part.restart)

    @asynccontextmanager
    async def _open(self, wanted: Wanted, ask: Ask) -> AsyncGenerator[Incoming, None]:
        """Ask the address."""
        if wanted.source.scheme == "file":
            async with read_file(wanted.source, env=self._env) as incoming:
                yield incoming
            return
        # An agent whose tasks need no artifact from the network does not load an HTTP client for it.
        from khonsu.artifacts import http

        if self._tls is None:
            try:
                self._tls = await self._env.run_blocking(http.tls_context, self._ca_file)
            except OSError as error:
                hint = "Give a file of certificates in PEM"
                raise ArtifactError(
                    f"the certificates in {self._ca_file} cannot be used: {error}", hint=hint
                ) from error
        async with http.request(wanted.source, ask, context=self._tls, networks=self._networks) as incoming:
            yield incoming

    def _remember(self, key: str, validator: Validator) -> None:
        """Remember of which version a part is, if equal versions have equal bytes; not of all that ever failed."""
        self._validators.pop(key, None)
        if validator.strong_etag is not None:
            self._validators[key] = validator
        if len(self._validators) > KNOWN_MAX:
            del self._validators[next(iter(self._validators))]
