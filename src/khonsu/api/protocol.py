"""One connection: uvicorn's, with limits against slow callers and less memory."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from khonsu.api.answers import COMMON_HEADERS, PROBLEM_TYPE
from khonsu.api.app import HEAD_TOO_LARGE
from khonsu.api.corked import CorkedTransport
from khonsu.api.endpoints import ABORT
from khonsu.api.limits import Limits
from khonsu.core.units import format_size
from khonsu.errors import InvalidRequest
from khonsu.transports.wire import encode_error

# asyncio gives each TLS connection a buffer of 256 KiB to read into; 16 KiB is one TLS record.
TLS_BUFFER_BYTES: Final = 16 * 1024


class HTTPProtocol(H11Protocol):
    """A connection with time limits for what uvicorn waits for without end."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Begin without an access log: requests are counted, not written down."""
        super().__init__(*args, **kwargs)
        self.access_log = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, but not for ever."""
        super().connection_made(CorkedTransport(transport, self.loop))
        _shrink(transport)
        self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limit."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes; a request must be whole some time after its first byte."""
        super().data_received(data)
        self._be_patient()

    def handle_events(self) -> None:
        """Take what was read, and give a new request what cuts its connection."""
        super().handle_events()
        scope: Any = self.scope  # None before the first request
        if scope and "extensions" not in scope:
            scope["extensions"] = {ABORT: self.abort}

    def abort(self) -> None:
        """Close at once, without an end of what was being sent."""
        self._stop_waiting()
        if self.transport is not None:
            self.transport.abort()

    def _serving(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _be_patient(self) -> None:
        """Set or drop the time limit by what is being waited for."""
        if self._serving() or self.timeout_keep_alive_task is not None:
            self._stop_waiting()
        elif self._patience is None:
            discarding = self.conn.their_state is h11.SEND_BODY
            limit = self.limits.discard_seconds_max if discarding else self.limits.header_seconds_max
            self._patience = self.loop.call_later(limit, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if not self._serving():
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Go on to the next request, or to what is left of this one."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._unset_keepalive_if_required()
        self._be_patient()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or has too long a head."""
        del msg
        if self.conn.our_state is not h11.IDLE and self.conn.our_state is not h11.SEND_RESPONSE:
            self.transport.abort()  # an answer is under way, and cannot be taken back
            return
        status, error = 400, InvalidRequest("this is not HTTP", hint="Speak HTTP/1.1 over TLS")
        if self.conn.trailing_data[0] and len(self.conn.trailing_data[0]) > self.limits.header_bytes_max:
            status = HEAD_TOO_LARGE
            most = format_size(self.limits.header_bytes_max)
            error = InvalidRequest(f"the head of the request is larger than {most}", hint="Send less of it")
        content = encode_error(error)
        headers = {**COMMON_HEADERS, "Content-Type": PROBLEM_TYPE, "Connection": "close"}
        raw = [*headers.items(), ("Content-Length", str(len(content)))]
        for event in (
            h11.Response(status_code=status, headers=raw, reason=STATUS_PHRASES.get(status, b"")),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def protocol_class(limits: Limits) -> type[HTTPProtocol]:
    """Return the class of connections with some limits; uvicorn makes them itself."""
    return type("HTTPProtocol", (HTTPProtocol,), {"limits": limits})


def _shrink(transport: asyncio.Transport) -> None:
    """Give a TLS connection a smaller buffer to read into; where Python has none of that kind, leave it."""
    tls: Any = getattr(transport, "_ssl_protocol", None)
    if isinstance(getattr(tls, "_ssl_buffer", None), bytearray) and hasattr(tls, "_ssl_buffer_view"):
        tls.max_size = TLS_BUFFER_BYTES
        tls._ssl_buffer = bytearray(TLS_BUFFER_BYTES)  # noqa: SLF001 - see above; the public way is to patch the class
        tls._ssl_buffer_view = memoryview(tls._ssl_buffer)  # noqa: SLF001
