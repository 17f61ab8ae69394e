"""What is asked of a place and what it answers, whichever kind of place it is, and how that gets into a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import anyio
from attrs import field, frozen

from khonsu.artifacts.faults import cut, fault
from khonsu.artifacts.part import READ_BYTES, Part
from khonsu.env import Env

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called on the event loop with the bytes there are and, if it is known, how many there will be."""

FLUSH_SECONDS = 1.0


@frozen
class Validator:
    """What tells a later version of a file from this one (RFC 9110, section 8.8)."""

    etag: str | None = None
    modified: str | None = None

    @property
    def strong_etag(self) -> str | None:
        """Return the tag if equal tags mean equal bytes, as a resumed download needs it."""
        return self.etag if self.etag is not None and not self.etag.startswith("W/") else None


@frozen(kw_only=True)
class Ask:
    """What is known before the question: what is there in part, and what is there whole."""

    pinned: bool
    offset: int = 0
    """How many bytes are there in part."""
    part: Validator = field(factory=Validator)
    """Of which version they are; without a strong tag only a digest can say."""
    whole: Validator | None = None
    """Of which version there is a whole copy, if there is one."""


@frozen(kw_only=True)
class Incoming:
    """An answer: bytes from an offset on, or that nothing changed."""

    chunks: AsyncIterator[bytes]
    offset: int = 0
    total_bytes: int | None = None
    validator: Validator = field(factory=Validator)
    unchanged: bool = False


async def receive(incoming: Incoming, part: Part, *, shown: str, bytes_max: int, progress: Progress, env: Env) -> None:
    """Write an answer into a partial file, which is whole when this returns.

    What came stays in the file when this fails, so that a later download can go on from there.

    Raises:
        ArtifactError: It is larger than the limit, or ended before its end.
        OSError: It cannot be written.

    """
    total = incoming.total_bytes
    if incoming.offset != part.size_bytes:
        await env.run_blocking(part.restart)
    progress(part.size_bytes, total)
    writer = _Writer(part, env)
    try:
        async for chunk in incoming.chunks:
            check_size(writer.size_bytes + len(chunk), bytes_max, shown)
            if await writer.add(chunk):
                progress(part.size_bytes, total)
    finally:
        with anyio.CancelScope(shield=True):
            await writer.flush()
    if total is not None and part.size_bytes != total:
        raise cut(shown, received=part.size_bytes, total=total, reason="the connection was closed")
    progress(part.size_bytes, part.size_bytes)


class _Writer:
    """Gathers small chunks, so that not each of them costs a visit to a thread."""

    def __init__(self, part: Part, env: Env) -> None:
        self._part = part
        self._env = env
        self._waiting = bytearray()
        self._flushed_at = env.monotonic()

    @property
    def size_bytes(self) -> int:
        return self._part.size_bytes + len(self._waiting)

    async def add(self, chunk: bytes) -> bool:
        """Take a chunk; return whether it was written."""
        self._waiting += chunk
        due = self._env.monotonic() - self._flushed_at >= FLUSH_SECONDS
        if len(self._waiting) < READ_BYTES and not due:
            return False
        await self.flush()
        return True

    async def flush(self) -> None:
        """Write what waits."""
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            await self._env.run_blocking(self._part.append, data)
        self._flushed_at = self._env.monotonic()


def check_size(size_bytes: int, bytes_max: int, shown: str) -> None:
    """Refuse what is larger than the limit.

    Raises:
        ArtifactError: It is.

    """
    if size_bytes > bytes_max:
        hint = "Raise the agent's limit, or make the artifact smaller"
        raise fault(shown, f"larger than the limit: {size_bytes} of at most {bytes_max} bytes", hint=hint)
