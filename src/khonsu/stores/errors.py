"""The one place where errors of SQLite become errors of the store."""

from __future__ import annotations

import inspect
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from khonsu.errors import StoreDamaged, StoreError, StoreFull, StoreInUse

_APSW_CODES = {
    "FullError": sqlite3.SQLITE_FULL,
    "IOError": sqlite3.SQLITE_IOERR,
    "CantOpenError": sqlite3.SQLITE_CANTOPEN,
    "ReadOnlyError": sqlite3.SQLITE_READONLY,
}
_WAITS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_PRIMARY = 0xFF  # the extended codes carry the primary one in their lowest byte


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Raise the errors of SQLite in a block as errors of the store; let everything else pass.

    Raises:
        StoreError: SQLite failed; its kind says how.

    """
    try:
        yield
    except Exception as error:
        found = store_error(error, path)
        if found is not None:
            _let_go(error)
            raise found from error
        raise


def store_error(error: BaseException, path: str) -> StoreError | None:
    """Return what an error of SQLite means for the store, or None for any other error and for our own mistakes."""
    code = _code(error)
    if code is None:
        return None
    primary = code & _PRIMARY
    text = str(error)
    if primary == sqlite3.SQLITE_FULL:
        return StoreFull(
            f"there is no room to write {path}", hint="Make room on its disk; writing then goes on by itself"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreInUse(
            f"{path} is in use by another process", hint="Stop the other control plane, or use another file"
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, text)
    if primary == sqlite3.SQLITE_IOERR:
        return StoreError(f"reading or writing {path} failed: {text}", hint="Look at the disk and the kernel's log")
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StoreError(f"{path} cannot be opened for writing: {_why_not(path) or text}")
    if primary in (sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_NOLFS):
        return StoreError(f"SQLite cannot work on {path}: {text}")
    if primary == sqlite3.SQLITE_TOOBIG:
        return StoreError(f"what was to be written into {path} is larger than SQLite takes: {text}")
    if primary in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH):
        return StoreError(f"{path} does not take what was to be written: {text}")
    return None


def _let_go(error: BaseException | None) -> None:
    """Drop what the frames of an error hold: a cursor among it would keep the file open, and locked, for ever."""
    while error is not None:
        _clear(error.__traceback__)
        _clear(getattr(getattr(error, "orig", None), "__traceback__", None))
        error = error.__context__


def _clear(traceback: TracebackType | None) -> None:
    """Clear the frames of functions that have ended.

    An earlier error may have been raised to tasks that go on since: to clear the frame of one that waits would end it.
    """
    while traceback is not None:
        frame = traceback.tb_frame
        if not frame.f_code.co_flags & _WAITS:
            with suppress(RuntimeError):  # it still runs
                frame.clear()
        traceback = traceback.tb_next


def damaged(path: str, why: str) -> StoreDamaged:
    """Return the error of a file that cannot be trusted."""
    hint = "Nothing was changed. Keep the file as it is, and put a copy from before the damage in its place"
    return StoreDamaged(f"{path} is damaged: {why}", hint=hint)


def _code(error: BaseException) -> int | None:
    """Return SQLite's result code, which sqlite3 and apsw name differently, and peewee wraps."""
    for found in (getattr(error, "orig", None), error, error.__cause__, error.__context__):
        code = getattr(found, "sqlite_errorcode", None) or getattr(found, "extendedresult", None)
        if isinstance(code, int):
            return code
        if type(found).__module__ == "apsw":  # raised by a simulated disk, without a code
            return _APSW_CODES.get(type(found).__name__)
    return None


def _why_not(path: str) -> str | None:
    """Return why a file cannot be opened, in words, as far as the file system tells."""
    place = Path(path)
    if place.is_dir():
        return "it is a folder"
    if not place.parent.exists():
        return f"the folder {place.parent} does not exist"
    if not place.parent.is_dir():
        return f"{place.parent} is not a folder"
    if not os.access(place.parent, os.W_OK):
        return f"the folder {place.parent} is not writable"
    if place.exists() and not os.access(place, os.R_OK | os.W_OK):
        return "its mode does not allow it"
    return None


def not_open() -> StoreError:
    """Return the error of a store that is used before it is entered or after it was left."""
    return StoreError("the store is not open", hint="Use it inside of its block: async with store")
