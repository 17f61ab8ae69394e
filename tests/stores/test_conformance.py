"""Every store keeps the promises of the interface."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from playhouse.apsw_ext import APSWDatabase

from khonsu.stores.memory import MemoryStore
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.wrapper import StoreWrapper
from khonsu.testing.stores import check_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from khonsu.abc.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def new_path(tmp_path: Path) -> Callable[[], Path]:
    """Return a maker of paths where nothing is yet."""
    numbers = count()
    return lambda: tmp_path / f"{next(numbers)}.db"


def reopened(store: Store) -> Store:
    """Return a store over the file of another one."""
    assert isinstance(store, SQLiteStore)
    return SQLiteStore(store.path)


async def test_a_store_in_memory_keeps_the_promises() -> None:
    """The store in memory passes the check of stores, also after it was left and entered again."""
    await check_store(MemoryStore, reopen=lambda store: store)


async def test_a_store_in_a_file_keeps_the_promises(new_path: Callable[[], Path]) -> None:
    """The store in a file passes the check of stores, also when the file is opened again."""
    await check_store(lambda: SQLiteStore(new_path()), reopen=reopened)


async def test_another_database_class_keeps_the_promises(new_path: Callable[[], Path]) -> None:
    """The store works as well on another SQLite library, as the simulation needs it."""
    await check_store(lambda: SQLiteStore(new_path(), database=APSWDatabase))


async def test_a_wrapper_keeps_the_promises(new_path: Callable[[], Path]) -> None:
    """A store in a wrapper passes the check of stores."""
    await check_store(lambda: StoreWrapper(SQLiteStore(new_path())))
    await check_store(lambda: StoreWrapper(MemoryStore()))
