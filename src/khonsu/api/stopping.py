"""The end of a server: what is held ends at once, what writes may end by itself."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio

from khonsu.errors import Unavailable


class Stopping:
    """Keeps the scopes of the requests that are being served."""

    def __init__(self) -> None:
        """Serve."""
        self._scopes: dict[anyio.CancelScope, bool] = {}
        self._stopping = False
        self._idle = anyio.Event()

    @contextmanager
    def scope(self, *, patient: bool) -> Generator[anyio.CancelScope, None, None]:
        """Run a block that is cancelled when the server stops; a patient one only when it must.

        Raises:
            Unavailable: The server is stopping already.

        """
        if self._stopping:
            raise self.error()
        with anyio.CancelScope() as scope:
            self._scopes[scope] = patient
            try:
                yield scope
            finally:
                self._forget(scope)

    def _forget(self, scope: anyio.CancelScope) -> None:
        del self._scopes[scope]
        if self._stopping and not self._scopes:
            self._idle.set()

    async def stop(self, seconds_max: float) -> None:
        """End all that is served, at the latest after this time."""
        self._stopping = True
        for scope, patient in list(self._scopes.items()):
            if not patient:
                scope.cancel()
        if self._scopes:
            with anyio.move_on_after(seconds_max):
                await self._idle.wait()
        for scope in list(self._scopes):
            scope.cancel()

    @staticmethod
    def error() -> Unavailable:
        """Return what those are told whose request ended."""
        return Unavailable("the control plane is stopping", hint="Try again in a moment")
