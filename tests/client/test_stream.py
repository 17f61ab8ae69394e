"""Streams: lines that come in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from khonsu.abc.transport import ByteStream
from khonsu.client.stream import Stream
from khonsu.errors import KhonsuError

pytestmark = pytest.mark.anyio


class Pieces(ByteStream):
    """Bytes in pieces, as a network hands them out."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def receive(self) -> bytes:
        if not self._pieces:
            raise anyio.EndOfStream
        return self._pieces.pop(0)

    async def send(self, data: bytes, /) -> None:
        raise AssertionError(data)


def stream(*pieces: bytes) -> Stream[str]:
    """Return a stream of texts."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[ByteStream]:
        yield Pieces(*pieces)

    return Stream(opening, bytes.decode)


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((), []),
        ((b"a\nb\n",), ["a", "b"]),
        ((b"a", b"b", b"\n"), ["ab"]),
        ((b"a\n\n", b"\nb\nc", b"\n"), ["a", "b", "c"]),
        (("é\n".encode()[:1], "é\n".encode()[1:]), ["é"]),
        ((b"a\ncut",), ["a"]),
    ],
)
async def test_lines_are_whole(pieces: tuple[bytes, ...], lines: list[str]) -> None:
    """However the bytes are cut, an item is a whole line; one that is cut off at the end is none."""
    async with stream(*pieces) as items:
        assert [item async for item in items] == lines


async def test_a_stream_is_read_in_its_block_and_entered_once() -> None:
    """Wrong use says what is right."""
    made = stream(b"a\n")
    with pytest.raises(KhonsuError, match="block"):
        await anext(made)
    async with made:
        pass
    with pytest.raises(KhonsuError, match="once"):
        async with made:
            pass
