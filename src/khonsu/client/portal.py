"""The portal: an event loop on a thread of its own, for programs that have none."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from khonsu.errors import KhonsuError

T = TypeVar("T")


class Portal:
    """A loop that starts with the first call and runs until `close`, or until the interpreter ends.

    Calls may come from any thread but the loop's own. A call that is interrupted from the keyboard is cancelled.

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

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function on the loop and return its result.

        Raises:
            KhonsuError: The portal is closed.

        """
        future = self._running().start_task_soon(function)
        try:
            return future.result()
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
        """Leave what was entered, and end the loop; does nothing the second time."""
        with self._lock:
            stack, self._stack, self._portal, self._closed = self._stack, None, None, True
        atexit.unregister(self.close)
        if stack is not None:
            stack.close()

    def _running(self) -> BlockingPortal:
        with self._lock:
            if self._closed:
                raise _closed()
            if self._portal is None:
                self._stack = ExitStack()
                self._portal = self._stack.enter_context(
                    start_blocking_portal(backend_options=self._options, name=self._name)
                )
                atexit.register(self.close)
            return self._portal


def _closed() -> KhonsuError:
    return KhonsuError("it is closed", hint="Make another one, or do not leave its `with` block yet")
