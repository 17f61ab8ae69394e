"""The store: synchronous transactions over records, and a feed of everything that changed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from attrs import field, frozen

from khonsu.core.records import Record
from khonsu.core.revision import Revision

T = TypeVar("T")

Columns = Mapping[str, Any]
"""Records of one kind by field: a list or tuple has one value per record, anything else is the same for all."""


@frozen
class Put:
    """Records that were written, whole."""

    kind: str
    records: tuple[Record, ...]


@frozen
class Delete:
    """Records that are gone. `pruned` marks what a retention policy removed."""

    kind: str
    keys: tuple[str, ...]
    pruned: bool = False


Change = Put | Delete


@frozen
class ChangeList:
    """All that one revision changed, in order."""

    revision: Revision
    changes: tuple[Change, ...]


@frozen
class Commit(Generic[T]):
    """A durable write: what its transaction returned, and its revision."""

    value: T
    revision: Revision
    changes: tuple[Change, ...] = field(default=(), repr=False)


class View(ABC):
    """The records at one revision. Only for use inside a query or a transaction, on the store's thread."""

    @property
    @abstractmethod
    def revision(self) -> Revision:
        """Return the revision of the last write that this view sees; of a transaction, the one that it will have."""

    @abstractmethod
    def get(self, kind: str, key: str, /) -> Record | None:
        """Return one record, or None."""

    @abstractmethod
    def find(
        self, kind: str, /, *, after_key: str | None = None, limit: int | None = None, **equals: object
    ) -> Sequence[Record]:
        """Return the records whose fields have these values, in the order of their keys.

        Args:
            kind: The kind of record.
            after_key: Only records with a greater key: how longer reads page.
            limit: At most so many.
            equals: Field names and the values they must have.

        """


class Transaction(View):
    """A view that can also change records. What it wrote it sees."""

    @abstractmethod
    def put(self, /, *records: Record) -> None:
        """Write records whole, over earlier ones with the same key."""

    @abstractmethod
    def put_columns(self, kind: str, columns: Columns, /) -> None:
        """Write many records of one kind given by column, in one statement.

        A field that is not given has its default. The columns that are sequences have one length. A column of ids may
        hold the numbers behind them (`core.ids`) instead of their texts.
        """

    @abstractmethod
    def delete(self, kind: str, /, *keys: str, pruned: bool = False) -> None:
        """Remove records; a key that is not there is passed over."""


class Store(ABC):
    """What is remembered. An async context manager; the control plane enters it.

    Writes are transactions: synchronous functions that the store runs once each, one after the other, in the order of
    their arrival, on a thread of its own. One write is one revision. An exception in a transaction undoes only itself.
    """

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreError: It cannot be opened; nothing was changed.

        """

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Close the store after the writes that have arrived; an exception of the block passes."""

    @abstractmethod
    async def read(self, query: Callable[[View], T], /) -> T:
        """Run a query at one consistent, durable revision. Keep it short (2 ms): longer reads page."""

    @abstractmethod
    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Run a transaction; it is durable when this returns. Once begun it is not cancelled.

        Raises:
            StoreError: Nothing of it was written.
            Exception: What the transaction raised; it was undone, and no revision was used.

        """

    @abstractmethod
    def watch(self, after: Revision, /) -> AbstractAsyncContextManager[AsyncIterator[ChangeList]]:
        """Iterate over every durable change list after a revision, without a gap, for ever.

        Raises:
            HistoryGone: The revision is pruned, ahead of the store, or of an ended term (at entry, or while iterating
                when the reader fell too far behind).

        """
