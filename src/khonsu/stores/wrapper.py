"""A store around another one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeVar

from khonsu.abc.store import ChangeList, Commit, Store, Transaction, View
from khonsu.core.revision import Revision

T = TypeVar("T")


class StoreWrapper(Store):
    """Forwards everything to another store. Override what you want to see, count, change or break.

    Args:
        store: The other store; it is entered and left with the wrapper.

    """

    def __init__(self, store: Store, /) -> None:
        """Wrap a store."""
        self.store = store

    async def __aenter__(self) -> Self:
        """Enter the other store."""
        await self.store.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Leave the other store."""
        return await self.store.__aexit__(exc_type, exc, traceback)

    async def read(self, query: Callable[[View], T], /) -> T:
        """Run a query on the other store."""
        return await self.store.read(query)

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Run a transaction on the other store."""
        return await self.store.write(transaction)

    def watch(self, after: Revision, /) -> AbstractAsyncContextManager[AsyncIterator[ChangeList]]:
        """Watch the other store."""
        return self.store.watch(after)
