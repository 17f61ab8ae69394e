"""Servers for tests: in the test's own event loop if that is asyncio's, else in one of another thread."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import sniffio
from anyio.from_thread import start_blocking_portal

from khonsu.api.listener import HTTPListener

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from khonsu.abc.transport import Handler
    from khonsu.api.limits import Limits

LOOPBACK = "127.0.0.1:0"


@asynccontextmanager
async def serving(
    handler: Handler, *, limits: Limits | None = None, advertise: tuple[str, ...] = ()
) -> AsyncGenerator[str, None]:
    """Serve a handler over HTTPS; yields the URL."""
    if sniffio.current_async_library() == "asyncio":
        async with HTTPListener(LOOPBACK, limits=limits, advertise=advertise).serve(handler) as url:
            yield url
        return
    thread = serving_in_a_thread(handler, limits=limits, advertise=advertise)
    url = await anyio.to_thread.run_sync(thread.__enter__)
    try:
        yield url
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(thread.__exit__, None, None, None)


@contextmanager
def serving_in_a_thread(
    handler: Handler, *, limits: Limits | None = None, advertise: tuple[str, ...] = ()
) -> Generator[str, None, None]:
    """Serve a handler on an asyncio loop of another thread; yields the URL."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(
            HTTPListener(LOOPBACK, limits=limits, advertise=advertise).serve(handler)
        ) as url,
    ):
        yield url
