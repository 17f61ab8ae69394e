"""Streams in one direction: what both sides of a transport and the control plane build theirs on."""

from __future__ import annotations

from abc import abstractmethod

from khonsu.abc.transport import ByteStream
from khonsu.errors import InvalidRequest


class Downward(ByteStream):
    """A stream to the caller."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return some bytes, or raise `anyio.EndOfStream` at the end."""

    async def send(self, data: bytes, /) -> None:
        """Refuse: this stream goes to the caller."""
        raise InvalidRequest(f"{len(data)} bytes were sent on a stream that only goes to the caller")


class Upward(ByteStream):
    """A stream from the caller."""

    async def receive(self) -> bytes:
        """Refuse: this stream comes from the caller."""
        raise InvalidRequest("a stream that only comes from the caller cannot be received from")

    @abstractmethod
    async def send(self, data: bytes, /) -> None:
        """Send bytes; returns when there is room for more."""
