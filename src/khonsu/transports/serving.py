"""Calling a handler for somebody who is not trusted with its failures."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

import anyio

from khonsu.abc.transport import ByteStream, Handler, Request
from khonsu.errors import KhonsuError, Unavailable
from khonsu.scopes import bare
from khonsu.transports.wire import encode

_log = logging.getLogger(__name__)


@contextmanager
def guarded(operation: str) -> Generator[None, None, None]:
    """Let refusals through; anything else is logged here, and told to the caller without its inside."""
    try:
        yield
    except Exception as error:  # the outermost frame of a request: one that fails must not end the server
        found = bare(error)
        if isinstance(found, KhonsuError):
            raise found from found.__cause__
        _log.exception("%s failed", operation)
        raise KhonsuError(
            f"{operation} failed for a reason inside the control plane",
            hint="Its log has the details; please report it as a bug",
        ) from error


async def answer(handler: Handler, request: Request) -> bytes:
    """Return the answer to a request as JSON.

    Raises:
        KhonsuError: The handler refused, or failed.

    """
    with guarded(request.operation):
        response = await handler.call(request)
        return encode(response.body)


async def take(stream: ByteStream) -> bytes:
    """Return the next bytes of a stream to the caller, or none at its end."""
    try:
        while not (data := await stream.receive()):
            pass
    except anyio.EndOfStream:
        return b""
    return data


async def pass_on(stream: ByteStream, data: bytes) -> None:
    """Give bytes to a stream from the caller.

    Raises:
        Unavailable: Whoever read them has gone.

    """
    try:
        await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise Unavailable("nobody reads this stream any more", hint="Stop sending") from None
