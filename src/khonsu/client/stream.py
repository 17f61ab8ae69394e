"""Streams: what a client iterates over while it comes in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from khonsu.abc.transport import ByteStream
from khonsu.errors import KhonsuError

T = TypeVar("T")


class Stream(AsyncIterator[T], Generic[T]):
    """An async context manager and an async iterator, as in `async with client.logs("web") as lines: ...`.

    Errors of the request are raised on entry. Leaving the block ends the stream on both sides. It is entered once.
    """

    def __init__(
        self, opening: Callable[[], AbstractAsyncContextManager[ByteStream]], parse: Callable[[bytes], T]
    ) -> None:
        """Take what opens the stream, and what makes an item of a line."""
        self._opening = opening
        self._parse = parse
        self._context: AbstractAsyncContextManager[ByteStream] | None = None
        self._bytes: ByteStream | None = None
        self._lines: list[bytes] = []
        self._rest = b""

    async def __aenter__(self) -> Self:
        """Open the stream."""
        if self._context is not None:
            raise KhonsuError("a stream is entered once", hint="Ask the client for another")
        self._context = self._opening()
        self._bytes = await self._context.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream."""
        self._bytes = None
        if self._context is not None:
            await self._context.__aexit__(exc_type, exc, traceback)

    async def __anext__(self) -> T:
        """Return the next item, or end."""
        if self._bytes is None:
            raise KhonsuError("a stream is read inside its block", hint="Use it with `async with`, or `with`")
        while not self._lines:
            try:
                *lines, self._rest = (self._rest + await self._bytes.receive()).split(b"\n")
            except anyio.EndOfStream:
                raise StopAsyncIteration from None
            self._lines = [line for line in reversed(lines) if line]
        return self._parse(self._lines.pop())
