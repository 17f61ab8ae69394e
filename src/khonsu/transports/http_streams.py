"""Streams over HTTPS: down as the content of an answer, up as the body of a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from khonsu.abc.oneway import Downward, Upward
from khonsu.abc.transport import ByteStream, Request
from khonsu.core.operations import Operation
from khonsu.errors import KhonsuError, Unreachable
from khonsu.scopes import bare_task_group
from khonsu.transports.dialling import OK, Dialled
from khonsu.transports.pool import Download, NoAnswer
from khonsu.transports.routing import split
from khonsu.transports.upload import Upload
from khonsu.transports.wire import Lines

REASON_SECONDS: Final = 1.0


@asynccontextmanager
async def downward(server: Dialled, request: Request, operation: Operation) -> AsyncGenerator[ByteStream, None]:
    """Open a stream to the caller."""
    parts = split(operation, request.body)
    headers = server.headers(request)

    async def begin() -> Download:
        pool = await server.pool(request)
        return await pool.open(operation.method, server.target(parts), headers)

    download = await server.in_time(request, begin)
    try:
        if download.reply.status != OK:
            server.check(await server.in_time(request, download.read))
        server.check(download.reply)
        sender, receiver = anyio.create_memory_object_stream[bytes]()
        stream = _Downward(receiver)
        with receiver:
            async with bare_task_group() as group:
                group.start_soon(_pump, server, download, sender, stream)
                yield stream
                group.cancel_scope.cancel()
    finally:
        await download.aclose()


async def _pump(server: Dialled, download: Download, sender: MemoryObjectSendStream[bytes], stream: _Downward) -> None:
    """Read in a task of its own, so that a `receive` that is cancelled loses nothing."""
    lines = Lines()
    with sender:
        try:
            async for chunk in download.chunks():
                if data := lines.take(chunk):
                    await sender.send(data)
            if data := lines.end():
                await sender.send(data)
        except NoAnswer as error:
            stream.failure = await server.explained(error)
        except KhonsuError as error:
            stream.failure = error


class _Downward(Downward):
    """The caller's end of a stream to it."""

    def __init__(self, receiver: MemoryObjectReceiveStream[bytes]) -> None:
        self._receiver = receiver
        self.failure: KhonsuError | None = None

    async def receive(self) -> bytes:
        """Return some bytes."""
        try:
            return await self._receiver.receive()
        except anyio.EndOfStream:
            if self.failure is not None:
                raise self.failure from None
            raise


@asynccontextmanager
async def upward(server: Dialled, request: Request, operation: Operation) -> AsyncGenerator[ByteStream, None]:
    """Open a stream from the caller; its block is cancelled when the server ends it first."""
    target = server.target(split(operation, request.body))
    headers = server.headers(request, content_type="application/octet-stream")
    upload = await server.in_time(request, lambda: server.upload(request))
    try:
        if await server.in_time(request, lambda: upload.begin(operation.method, target, headers)):
            async with bare_task_group() as group:
                with anyio.CancelScope() as block:
                    group.start_soon(upload.watch, block.cancel)
                    yield _Upward(server, upload)
                    await server.in_time(request, upload.finish)
                group.cancel_scope.cancel()
        if upload.failure is not None:
            raise await server.explained(upload.failure)
        if upload.reply is not None:
            server.check(upload.reply)
        if not upload.complete:
            raise Unreachable(str(server.address), "it ended the stream")
    finally:
        with anyio.CancelScope(shield=True):
            await upload.aclose()


class _Upward(Upward):
    """The caller's end of a stream from it."""

    def __init__(self, server: Dialled, upload: Upload) -> None:
        self._server = server
        self._upload = upload

    async def send(self, data: bytes, /) -> None:
        """Send bytes; returns when the network has room for more."""
        if not data:
            return
        try:
            await self._upload.send(bytes(data))
        except NoAnswer as error:
            # Mostly the server has said why, and the one task that reads is about to see it.
            with anyio.move_on_after(REASON_SECONDS, shield=True):
                await self._upload.over.wait()
            if self._upload.reply is not None:
                self._server.check(self._upload.reply)
            raise await self._server.explained(self._upload.failure or error) from error
