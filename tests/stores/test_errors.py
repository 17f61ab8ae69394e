from __future__ import annotations

import sqlite3
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


def test_an_error_ends_no_task_that_was_told_of_an_earlier_one() -> None:
    """What a failed commit was told to waits for a while and goes on, also when the next try fails, too."""
    shared = StoreError("the first")
    task = meet(shared)
    task.send(None)
    with pytest.raises(StoreError, match="cannot be opened"), store_errors("/nowhere/at/all"):
        fail_after(shared)
    with pytest.raises(StopIteration, match="went on"):
        task.send(None)
