"""A server that is dialled: its connections, what every request to it carries, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from khonsu.abc.transport import Request
from khonsu.core.protocol import PROTOCOL, speaks
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, MalformedToken, Unreachable
from khonsu.transports.address import Address
from khonsu.transports.causes import is_foreign, unreachable
from khonsu.transports.pinned import Pinned
from khonsu.transports.pool import NoAnswer, Pool, Reply
from khonsu.transports.routing import DEADLINE_HEADER, IDEMPOTENCY_HEADER, PREFIX, PROTOCOL_HEADER, Parts, held_seconds
from khonsu.transports.upload import Upload, open_upload
from khonsu.transports.wire import decode_error

CONNECT_SECONDS: Final = 10.0
OK: Final = 200

T = TypeVar("T")

_VISIBLE: Final = re.compile(r"[!-~]{1,4096}", re.ASCII)
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)


class Dialled:
    """One server, with one identity. Connections are made as they are needed."""

    def __init__(self, address: Address, pinned: Pinned, credential: Secret | None, *, timeout_seconds: float) -> None:
        """Dial nothing yet."""
        self.address = address
        self._pinned = pinned
        self._credential = credential
        self._timeout_seconds = timeout_seconds
        self._lock = anyio.Lock()
        self._pool: Pool | None = None
        self._closed = False

    async def aclose(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._pool is not None:
            await self._pool.aclose()

    async def pool(self, request: Request) -> Pool:
        """Return the connections that are kept.

        Raises:
            KhonsuError: Nothing says whom to trust, or the server is not the trusted one.

        """
        self._ensure_open()
        if self._pool is None:
            async with self._lock:
                context = await self._pinned.context(self._shown(request))
                self._ensure_open()
                if self._pool is None:
                    self._pool = Pool(
                        self.address,
                        context,
                        proxy=self.address.proxy(),
                        connect_seconds=CONNECT_SECONDS,
                        wait_seconds=self._timeout_seconds,
                    )
        return self._pool

    async def upload(self, request: Request) -> Upload:
        """Return a new connection for a stream from the caller.

        Raises:
            NoAnswer: There is no connection.
            KhonsuError: Nothing says whom to trust, or the server is not the trusted one.

        """
        self._ensure_open()
        context = await self._pinned.context(self._shown(request))
        return await open_upload(self.address, context, proxy=self.address.proxy(), connect_seconds=CONNECT_SECONDS)

    def _ensure_open(self) -> None:
        if self._closed:
            raise Unreachable(str(self.address), "the connection was closed")

    def _shown(self, request: Request) -> Secret | None:
        return request.credential if request.credential is not None else self._credential

    def target(self, parts: Parts) -> str:
        """Return the path and query of a request on this server."""
        return f"{self.address.prefix}{PREFIX}{parts.target}"

    def headers(self, request: Request, *, content_type: str | None = None) -> dict[str, str]:
        """Return the headers of a request.

        Raises:
            InvalidRequest: The idempotency key cannot be sent.
            MalformedToken: The credential cannot be sent.

        """
        headers = {
            "Host": self.address.authority,
            "Accept": "application/json",
            PROTOCOL_HEADER: str(PROTOCOL),
        }
        credential = self._shown(request)
        if credential is not None:
            text = credential.reveal().strip()
            if not _VISIBLE.fullmatch(text):
                raise MalformedToken("a token", "is empty, too long, or holds letters that no token has")
            headers["Authorization"] = f"Bearer {text}"
        if request.idempotency_key is not None:
            if not _IDEMPOTENCY_KEY.fullmatch(request.idempotency_key):
                raise InvalidRequest("an idempotency key has 1 to 255 visible ASCII letters")
            headers[IDEMPOTENCY_HEADER] = request.idempotency_key
        if request.deadline_seconds is not None:
            headers[DEADLINE_HEADER] = f"{max(request.deadline_seconds, 0.0):.3f}"
        if content_type is not None:
            headers["Content-Type"] = content_type
        return headers

    async def in_time(self, request: Request, act: Callable[[], Awaitable[T]]) -> T:
        """Return what came of one step of a request.

        Raises:
            Unreachable: It took too long, or there was no answer.

        """
        limit = request.deadline_seconds
        if limit is None:
            limit = self._timeout_seconds + held_seconds(request.body)
        with anyio.move_on_after(limit):
            try:
                return await act()
            except NoAnswer as error:
                raise await self.explained(error) from error
        hint = "Check that the server runs and is not overloaded; it is not known whether the request was carried out"
        raise Unreachable(str(self.address), f"no answer within {limit:g} s", hint=hint)

    async def explained(self, error: NoAnswer) -> Unreachable:
        """Return why there was no answer.

        Raises:
            WrongAuthority: The server belongs to somebody else.

        """
        if is_foreign(error):
            await self._pinned.check()
        return unreachable(self.address, error)

    def check(self, reply: Reply) -> None:
        """Let a good answer pass.

        Raises:
            KhonsuError: What the control plane raised.
            InvalidRequest: The server is too new or too old for us.
            Unreachable: It was not a control plane that answered.

        """
        spoken = reply.headers.get(PROTOCOL_HEADER.lower(), "")
        if spoken.isascii() and spoken.isdigit() and not speaks(int(spoken)):
            raise InvalidRequest(
                f"{self.address} speaks version {spoken} of the protocol, this program version {PROTOCOL}",
                hint="Bring the older of the two to the version of the newer",
            )
        if reply.status == OK and spoken:
            return
        error = decode_error(reply.content) if reply.status != OK else None
        if error is not None:
            raise error
        where = f" and points to {reply.headers['location']}" if "location" in reply.headers else ""
        cause = f"what answers there is no Khonsu server (it says HTTP {reply.status}{where})"
        raise Unreachable(str(self.address), cause, hint="Check the address, and what stands in between")
