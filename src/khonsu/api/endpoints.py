"""The operations as ASGI applications: one for each route."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from attrs import frozen
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from khonsu.abc.transport import Handler, Request
from khonsu.api.answers import COMMON_HEADERS, Refused, answer, problem, refused
from khonsu.api.body import caller_gone, read_json
from khonsu.api.limits import Limits
from khonsu.api.stopping import Stopping
from khonsu.core.operations import Direction, Operation
from khonsu.core.protocol import PROTOCOL, speaks
from khonsu.core.secret import Secret
from khonsu.core.units import format_duration
from khonsu.errors import KhonsuError, Unavailable
from khonsu.scopes import bare_task_group
from khonsu.transports.routing import DEADLINE_HEADER, IDEMPOTENCY_HEADER, PROTOCOL_HEADER, has_content, join
from khonsu.transports.serving import answer as answered
from khonsu.transports.serving import guarded, pass_on, take
from khonsu.transports.wire import encode_last_line

_log = logging.getLogger(__name__)

ABORT: Final = "khonsu.abort"
"""Where our listener puts, into the scope, what cuts a connection: the only way to say that a stream is not whole."""

_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,6})?", re.ASCII)


@frozen(kw_only=True)
class Endpoint:
    """One operation. Its caller has been through the gate, and `scope["state"]` has the credential."""

    operation: Operation
    handler: Handler
    limits: Limits
    stopping: Stopping
    authenticate: Callable[[str, Secret | None], None] | None = None
    """Tells strangers apart before their body is read, where the handler can."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        response: Response | None
        try:
            response = await self._serve(scope, receive, send)
        except Refused as error:
            response = problem(error.error, status=error.status, headers=error.headers)
        except KhonsuError as error:
            response = problem(error)
        if response is not None:
            await response(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        headers = Headers(scope=scope)
        credential = scope["state"]["credential"]
        if self.authenticate is not None:
            self.authenticate(self.operation.name, credential)
        _check_protocol(headers)
        path = _path(scope["path_params"])
        query = _query(scope["query_string"])
        content = None
        if has_content(self.operation):
            content = await read_json(self.operation, headers, receive, self.limits)
        body = join(self.operation, path, query, content)
        self._check_wait(body)
        request = Request(
            operation=self.operation.name,
            body=body,
            credential=credential,
            idempotency_key=_idempotency_key(headers),
            deadline_seconds=_deadline(headers),
        )
        if self.operation.direction is Direction.DOWN:
            await self._send_stream(request, scope, receive, send)
            return None
        if self.operation.direction is Direction.UP:
            await self._receive_stream(request, receive)
            return answer(b"{}")
        return answer(await self._call(request, receive))

    def _check_wait(self, body: Mapping[str, Any]) -> None:
        wait = body.get("wait", 0.0)
        if self.operation.watchable and wait > self.limits.wait_seconds_max:
            limit = format_duration(self.limits.wait_seconds_max)
            raise refused(400, f"wait: found {format_duration(wait)}, expected at most {limit}", "Ask again after it")

    async def _call(self, request: Request, receive: Receive) -> bytes:
        """Call the handler. A read ends when its caller goes away; a write never does, unless the server must stop."""
        content: bytes | None = None
        with self.stopping.scope(patient=not self.operation.interruptible):
            if self.operation.reads:
                content = await _while_connected(receive, lambda: answered(self.handler, request))
            else:
                content = await answered(self.handler, request)
        if content is None:
            raise self.stopping.error()
        return content

    async def _send_stream(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to the caller, until either side ends it."""
        begun = whole = False
        try:
            with self.stopping.scope(patient=False), guarded(self.operation.name):
                async with self.handler.stream(request) as stream:
                    headers = {**COMMON_HEADERS, "Content-Type": "application/x-ndjson"}
                    raw = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
                    begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": raw})

                    async def pump() -> bytes:
                        while data := await take(stream):
                            await send({"type": "http.response.body", "body": data, "more_body": True})
                        return b""

                    await _while_connected(receive, pump)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                whole = True
        except KhonsuError as error:
            if not begun:
                raise
            _log.info("%s ended early: %s", self.operation.name, error)
            await send({"type": "http.response.body", "body": encode_last_line(error), "more_body": False})
            return
        if not begun:
            raise self.stopping.error()
        if not whole:
            await _cut(scope, receive)

    async def _receive_stream(self, request: Request, receive: Receive) -> None:
        """Stream from the caller; what is cut ends the handler's block with an exception."""
        whole = False
        with self.stopping.scope(patient=False), guarded(self.operation.name):
            async with self.handler.stream(request) as stream:
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise caller_gone()
                    if message.get("body"):
                        await pass_on(stream, message["body"])
                    more = message.get("more_body", False)
            whole = True
        if not whole:
            raise self.stopping.error()


async def _while_connected(receive: Receive, act: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return what an action returns; cancel it when the caller goes away.

    Raises:
        Unreachable: The caller went away.

    """
    result: bytes | None = None

    async def watch() -> None:
        await _gone(receive)
        group.cancel_scope.cancel()

    async with bare_task_group() as group:
        group.start_soon(watch)
        result = await act()
        group.cancel_scope.cancel()
    if result is None:
        raise caller_gone()
    return result


async def _gone(receive: Receive) -> None:
    """Wait until the caller has gone; what it sends behind a request without a body is of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut(scope: Scope, receive: Receive) -> None:
    """Cut the connection: the caller must see that the stream is not whole."""
    abort = scope.get("extensions", {}).get(ABORT)
    if abort is None:
        # Another server: it closes the connection when an application leaves an answer unfinished.
        raise Unavailable("the stream was cut")
    abort()
    await _gone(receive)


def _check_protocol(headers: Headers) -> None:
    spoken = headers.get(PROTOCOL_HEADER)
    if spoken is None:
        return
    if not (spoken.isascii() and spoken.isdigit() and len(spoken) <= 6 and speaks(int(spoken))):
        raise refused(
            400,
            f"the caller speaks version {spoken[:20]!r} of the protocol, this server version {PROTOCOL}",
            "Bring the older of the two to the version of the newer",
        )


def _path(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of the path, which were routed as they stand in the URL."""
    try:
        return {name: unquote(text, errors="strict") for name, text in parameters.items()}
    except UnicodeDecodeError:
        raise refused(400, "the path is not UTF-8", "Encode names as UTF-8") from None


def _query(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise refused(400, "the query is not UTF-8, or has too many parameters", "Encode it as UTF-8") from None


def _idempotency_key(headers: Headers) -> str | None:
    key = headers.get(IDEMPOTENCY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise refused(400, f"{IDEMPOTENCY_HEADER}: found {key[:60]!r}", "Expected are 1 to 255 visible ASCII letters")
    return key


def _deadline(headers: Headers) -> float | None:
    text = headers.get(DEADLINE_HEADER)
    if text is not None and not _SECONDS.fullmatch(text):
        raise refused(400, f"{DEADLINE_HEADER}: found {text[:60]!r}", "Expected are seconds")
    return float(text) if text is not None else None
