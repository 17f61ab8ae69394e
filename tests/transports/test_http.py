from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from khonsu.testing import Counterpart, check_transport
from khonsu.transports.http import HTTPTransport
from tests.transports.servers import serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def over_https(handler: Counterpart) -> AsyncGenerator[HTTPTransport, None]:
    """Serve over HTTPS on loopback."""
    async with serving(handler) as url:
        yield HTTPTransport(url, ca=handler.authority.certificate_pem)


async def test_it_is_a_transport() -> None:
    """The transport over HTTPS keeps all promises of the interface, on asyncio and on trio."""
    await check_transport(over_https)
