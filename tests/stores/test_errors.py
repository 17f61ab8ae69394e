from __future__ import annotations

import sqlite3
from contextlib import closing
from types import coroutine
from typing import TYPE_CHECKING

import pytest

from khonsu.errors import StoreError
from khonsu.stores.errors import store_errors

if TYPE_CHECKING:
    from collections.abc import Generator


@coroutine
def pause() -> Generator[None, None, None]:
    """Wait once."""
    yield


async def meet(error: StoreError) -> str:
    """Be told of an error, and wait before going on."""
    try:
        raise error
    except StoreError:
        await pause()
    return "went on"


def fail_after(error: StoreError) -> None:
    """Have SQLite fail while an earlier error is handled."""
    try:
        raise error
    except StoreError:
        sqlite3.connect("/nowhere/at/all")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("INSERT INTO strict VALUES (NULL)", "does not take what was to be written: NOT NULL constraint failed"),
        ("INSERT INTO strict VALUES (1), (1)", "does not take what was to be written: UNIQUE constraint failed"),
        ("INSERT INTO strict VALUES ('a')", "does not take what was to be written: cannot store TEXT"),
        ("SELECT zeroblob(1000)", "larger than SQLite takes: string or blob too big"),
    ],
)
def test_what_sqlite_does_not_take_is_an_error_of_the_store(statement: str, message: str) -> None:
    """A row that is too large or breaks a rule of its table fails the write like any fault of the file."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 500)
        connection.execute("CREATE TABLE strict (key INTEGER NOT NULL UNIQUE) STRICT")
        with pytest.raises(StoreError, match=message), store_errors("state.db"):
            connection.execute(statement).fetchall()


def test_an_error_ends_no_task_that_was_told_of_an_earlier_one() -> None:
    """What a failed commit was told to waits for a while and goes on, also when the next try fails, too."""
    shared = StoreError("the first")
    task = meet(shared)
    task.send(None)
    with pytest.raises(StoreError, match="cannot be opened"), store_errors("/nowhere/at/all"):
        fail_after(shared)
    with pytest.raises(StopIteration, match="went on"):
        task.send(None)
