"""The portal: an event loop on a thread of its own, for programs that have none."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import CancelledError  # noqa: TID251 - the error of the portal's futures
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, suppress
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from khonsu.errors import KhonsuError

T = TypeVar("T")


class Portal:
    """A loop that starts with the first call and runs until `close`, or until the interpreter ends.

    Calls may come from any thread but the loop's own. A call that is interrupted from the keyboard is cancelled, and so
    are those that are under way when it is closed. A child that the process forks cannot use it, and leaves it alone.

    Args:
        name: The name of the thread.
        backend_options: For anyio's asyncio backend.

    """

    def __init__(self, name: str, *, backend_options: Mapping[str, Any] | None = None) -> None:
        """Start nothing yet."""
        self._name = name
        self._options = dict(backend_options or {})
        self._stack: ExitStack | None = None
        self._portal: BlockingPortal | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._process = os.getpid()
        self._thread: int | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function on the loop and return its result.

        Raises:
            KhonsuError: The portal is closed, or of another process, or this is a callback on its own thread.

        """
        portal = self._running()
        if self._thread == threading.get_ident():
            raise KhonsuError(
                "a call from a callback of this client would wait for itself",
                hint="Take note of what the callback is told, and ask when the call has returned",
            )
        try:
            future = portal.start_task_soon(function)
        except RuntimeError:  # it was closed just now
            raise _closed() from None
        try:
            return future.result()
        except CancelledError:
            raise _closed() from None
        except (KeyboardInterrupt, SystemExit):
            future.cancel()
            raise

    def entered(self, context: AbstractAsyncContextManager[T]) -> AbstractContextManager[T]:
        """Return the synchronous form of an async context manager."""
        return self._running().wrap_async_context_manager(context)

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager until `close`; the last one entered is left first."""
        entered = self.entered(context)
        with self._lock:
            if self._stack is None:
                raise _closed()
            return self._stack.enter_context(entered)

    def close(self) -> None:
        """Leave what was entered, end what is under way, and the loop; does nothing the second time."""
        if self.is_foreign:
            return
        with self._lock:
            stack, self._stack, self._portal, self._closed = self._stack, None, None, True
        atexit.unregister(self.close)
        if stack is not None:
            stack.close()

    @property
    def is_foreign(self) -> bool:
        """Return whether it is that of a process of which this one is a child."""
        return self._process != os.getpid()

    @property
    def is_closed(self) -> bool:
        """Return whether it was closed."""
        return self._closed

    def _running(self) -> BlockingPortal:
        if self.is_foreign:
            # Asked before the lock is, which a thread may have had that the fork left behind.
            raise KhonsuError("it is of another process", hint="Make another one after a fork")
        with self._lock:
            if self._closed:
                raise _closed()
            if self._portal is None:
                self._stack = ExitStack()
                self._portal = self._stack.enter_context(
                    start_blocking_portal(backend_options=self._options, name=self._name)
                )
                self._stack.callback(_end, self._portal)
                self._thread = self._portal.call(threading.get_ident)
                atexit.register(self.close)
            return self._portal


def _end(portal: BlockingPortal) -> None:
    """Cancel what is under way: another thread may follow something that has no end."""
    with suppress(RuntimeError):  # it has ended by itself
        portal.call(portal.stop, True)


def _closed() -> KhonsuError:
    return KhonsuError("it is closed", hint="Make another one, or do not leave its `with` block yet")
