"""Streams in one direction."""

from __future__ import annotations

import pytest

from khonsu.abc.oneway import Downward, Upward
from khonsu.errors import InvalidRequest

pytestmark = pytest.mark.anyio


class _Down(Downward):
    async def receive(self) -> bytes:
        return b"down"


class _Up(Upward):
    async def send(self, data: bytes, /) -> None:
        del data


async def test_the_wrong_direction_is_refused() -> None:
    """Both kinds say which way they go."""
    with pytest.raises(InvalidRequest, match="only goes to the caller"):
        await _Down().send(b"x")
    with pytest.raises(InvalidRequest, match="only comes from the caller"):
        await _Up().receive()
