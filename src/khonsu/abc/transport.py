"""Transports: how a client or an agent reaches a control plane, and how a control plane is served."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from khonsu.core.secret import Secret


@frozen(kw_only=True)
class Request:
    """One request. `operation` is a name of `khonsu.core.operations`; `body` holds all parameters as JSON values."""

    operation: str
    body: Mapping[str, Any] = field(factory=dict)
    credential: Secret | None = None
    idempotency_key: str | None = None
    deadline_seconds: float | None = None


@frozen(kw_only=True)
class Response:
    """The answer to a request: JSON values."""

    body: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Identity:
    """Who dials: the credential that goes with every request that has none of its own."""

    credential: Secret


class ByteStream(ABC):
    """A stream of bytes in one direction, by the operation's direction."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return some bytes, or raise `anyio.EndOfStream` at the end. Only for streams to the caller."""

    @abstractmethod
    async def send(self, data: bytes, /) -> None:
        """Send bytes; returns when the transport has room for more. Only for streams from the caller."""


class Connection(ABC):
    """An open way to a control plane. Calls may run concurrently."""

    @abstractmethod
    async def call(self, request: Request, /) -> Response:
        """Make a request and return its answer.

        Raises:
            KhonsuError: What the control plane raised, rebuilt from its code and facts.
            Unreachable: There was no answer; whether the request was carried out is not known.

        """

    @abstractmethod
    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Open a stream; errors of the request are raised on entry. Leaving the block ends it on both sides.

        A stream from the caller (`Direction.UP`) is complete when the block is left without an exception. When the
        other side ends such a stream first, the block is cancelled and what it said is raised.
        """


class Transport(ABC):
    """The dialling side."""

    @abstractmethod
    def connect(self, identity: Identity | None, /) -> AbstractAsyncContextManager[Connection]:
        """Own a connection. Dialling may happen at the first call."""


@runtime_checkable
class SupportsPinning(Protocol):
    """A transport whose server proves itself by an authority, which can be kept and pinned from then on."""

    @property
    @abstractmethod
    def authority(self) -> str | None:
        """Return the certificate (PEM) of the authority that is trusted, or None while it is not known."""

    @abstractmethod
    def pinned(self, authority: str, /) -> Transport:
        """Return such a transport to the same server that trusts this authority (PEM) and nobody else."""


class Handler(ABC):
    """The control plane as a listener sees it."""

    @abstractmethod
    async def call(self, request: Request, /) -> Response:
        """Serve a request; raises `KhonsuError` for a refusal."""

    @abstractmethod
    def stream(self, request: Request, /) -> AbstractAsyncContextManager[ByteStream]:
        """Serve a stream: the returned side is the caller's."""

    @abstractmethod
    def server_context(self, hosts: Sequence[str], /) -> ssl.SSLContext:
        """Return the TLS context for a server that is reached by these names and addresses."""

    @abstractmethod
    def metrics(self) -> str:
        """Return the metrics as OpenMetrics text."""

    @abstractmethod
    def ready(self) -> bool:
        """Return whether requests are served."""


@runtime_checkable
class SupportsAuthentication(Protocol):
    """A handler that can tell who asks before anything else of a request was read."""

    def authenticate(self, operation: str, credential: Secret | None, /) -> None:
        """Return at once if this credential may ask for this operation; `call` and `stream` check it again.

        Raises:
            NotAllowed: It may not; `Unauthenticated` where it is not known.

        """


class Listener(ABC):
    """The serving side."""

    @abstractmethod
    def serve(self, handler: Handler, /) -> AbstractAsyncContextManager[str]:
        """Serve a handler for the length of the block; yields the address when it is ready."""
