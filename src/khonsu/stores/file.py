"""The state file: what is refused and why, how it is made, and how SQLite is to treat it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from peewee import SqliteDatabase

from khonsu.errors import StoreError, StoreForeign, StoreTooNew
from khonsu.stores.bulk import Database
from khonsu.stores.errors import damaged, store_errors
from khonsu.stores.schema import Schema

DatabaseClass: TypeAlias = Callable[..., Database]
"""A peewee database class for SQLite, or a function that makes such a database."""

APPLICATION_ID = 0x4B_68_4E_73  # "KhNs": marks a file as ours
CHECKED_BYTES_MAX = 32 * 1024 * 1024
"""Files up to this size are checked page by page at the opening (0.1 s); larger ones are checked as they are read."""

WAL_PAGES = 4096  # 16 MiB: when the log goes into the file
WAL_BYTES_KEPT = 32 * 1024 * 1024  # what the log file shrinks to after a larger group

_SQLITE_MIN = (3, 37, 0)  # the first with strict tables
_WAL_RESET_BUG = ((3, 7, 0), (3, 51, 3))
_WAL_HEADER_BYTES = 32
_PAGE_BYTES_MIN = 512
_NO_CHECKPOINT_ON_CLOSE = 1006  # SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, which sqlite3 names since Python 3.12

PRAGMAS: tuple[tuple[str, str | int], ...] = (
    ("locking_mode", "EXCLUSIVE"),  # before anything is read: the log then needs no shared memory
    ("synchronous", "FULL"),
    ("fullfsync", 1),  # macOS: fsync alone leaves the data in the drive's cache
    ("checkpoint_fullfsync", 1),
    ("temp_store", "MEMORY"),
    ("cache_size", -8000),  # KiB
    ("cell_size_check", 1),
    ("secure_delete", "FAST"),  # wipe what is deleted where that costs no further page
    ("trusted_schema", 0),
)


def sqlite_warnings(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> tuple[str, ...]:
    """Return what is to be said of the SQLite that this Python links."""
    first, fixed = _WAL_RESET_BUG
    if not first <= version < fixed:
        return ()
    linked = ".".join(map(str, version))
    text = (
        f"this Python links SQLite {linked}, which can damage a log that two connections write or checkpoint at once "
        "(fixed in 3.51.3). The store has one connection and locks the file, so that this cannot happen to it; "
        "do not open the state file with other programs while it is in use"
    )
    return (text,)


def open_file(path: str, database: DatabaseClass, schema: Schema) -> Database:
    """Open a state file, or make it, and return the database with its exclusive lock held.

    Another database class than peewee's own looks after its own disk: there the file is neither made nor looked at
    before SQLite opens it.

    Raises:
        StoreDamaged: The file is no database, or is not whole.
        StoreForeign: It is a database, but not one of Khonsu.
        StoreTooNew: A newer Khonsu wrote it.
        StoreInUse: Another connection has it open.
        StoreError: It cannot be opened.

    """
    if sqlite3.sqlite_version_info < _SQLITE_MIN:
        raise StoreError(f"SQLite 3.37 or newer is needed; this Python links {sqlite3.sqlite_version}")
    with store_errors(path):
        if database is SqliteDatabase:
            _make_private(path)
            _look_at(path, schema)
        opened = database(path, pragmas=PRAGMAS, timeout=0)
        opened.connect()
        try:
            _prepare(opened, path, schema)
        except BaseException:
            leave_as_is(opened)
            opened.close()
            raise
    return opened


def check_file(path: Path | str) -> None:
    """Check a state file as far as that can be done without a lock and without a change; it may be in use. Blocks.

    Raises:
        StoreError: It is damaged, foreign, too new, or cannot be read.

    """
    with store_errors(str(path)):
        _look_at(str(path), Schema())


def leave_as_is(database: Database) -> None:
    """End what is open, and let the closing move nothing from the log to the file, where Python can say so."""
    connection = database.connection()
    if connection.in_transaction:
        database.execute_sql("ROLLBACK")
    if hasattr(connection, "setconfig"):  # sqlite3 since Python 3.12
        connection.setconfig(_NO_CHECKPOINT_ON_CLOSE, True)


def _make_private(path: str) -> None:
    """Make a new file, readable by nobody else; its log gets the same mode from SQLite."""
    with suppress(OSError):  # SQLite then says what is wrong with the place
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _look_at(path: str, schema: Schema) -> None:
    """Refuse a file without a lock and without a change on the disk: SQLite does not even look for its log.

    The first page names file and version whatever the log holds. The rest can be judged only where there is no log,
    that is after a clean end; else that is done under the lock.
    """
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    if size == 0:
        return
    if size < _PAGE_BYTES_MIN:  # for SQLite it would be an empty database
        raise damaged(path, f"it has {size} bytes, which is no database")
    make: Any = SqliteDatabase
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro&immutable=1"
    database = make(uri, uri=True, timeout=0)
    database.connect()
    try:
        _check_identity(database, path, schema)
        if not _has_log(path) and _pragma(database, "user_version") == schema.version:
            _check_whole(database, path)
            _check_tables(database, path, schema)
    finally:
        database.close()


def _has_log(path: str) -> bool:
    log = Path(f"{path}-wal")
    return (log.exists() and log.stat().st_size > _WAL_HEADER_BYTES) or Path(f"{path}-journal").exists()


def _prepare(database: Database, path: str, schema: Schema) -> None:
    """Take the lock, refuse what is not ours, and bring the tables to their version."""
    if _pragma(database, "page_count") == 0:
        # Outside of the log, so that the file itself says what it is from its first page on.
        database.execute_sql(f"PRAGMA application_id = {APPLICATION_ID}")
    _check_identity(database, path, schema)
    if _pragma(database, "journal_mode = WAL") != "wal":
        raise StoreError(f"SQLite cannot keep a write-ahead log beside {path}")
    database.execute_sql(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}").fetchall()
    database.execute_sql(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}").fetchall()
    database.execute_sql("BEGIN IMMEDIATE")
    _check_identity(database, path, schema)
    found = _pragma(database, "user_version")
    if found == 0 and not database.get_tables():
        schema.create(database)
    elif found < schema.version:
        schema.migrate(database, found)
    elif _has_log(path):
        _check_whole(database, path)
    _check_tables(database, path, schema)
    database.execute_sql("COMMIT")
    if found != schema.version:
        # The first page now names the new version even to those who do not read the log.
        database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _pragma(database: Database, name: str) -> Any:
    return database.execute_sql(f"PRAGMA {name}").fetchone()[0]


def _check_identity(database: Database, path: str, schema: Schema) -> None:
    if _pragma(database, "application_id") != APPLICATION_ID:
        raise StoreForeign(f"{path} is a SQLite file of another program", hint="Nothing was changed. Use another path")
    found = _pragma(database, "user_version")
    if found > schema.version:
        hint = "Nothing was changed. Use that newer version, or restore a backup from before the upgrade"
        raise StoreTooNew(
            f"{path} was written by a newer Khonsu: version {found}, and this one knows {schema.version}", hint=hint
        )


def _check_whole(database: Database, path: str) -> None:
    """Refuse a file that is cut short, or, up to a size, whose pages do not fit together."""
    pages, page_bytes = _pragma(database, "page_count"), _pragma(database, "page_size")
    size = Path(path).stat().st_size
    if not _has_log(path) and size < pages * page_bytes:
        raise damaged(path, f"it has {size} bytes and should have {pages * page_bytes}")
    if pages * page_bytes <= CHECKED_BYTES_MAX:
        fault = _pragma(database, "quick_check(1)")
        if fault != "ok":
            raise damaged(path, " ".join(fault.split()))


def _check_tables(database: Database, path: str, schema: Schema) -> None:
    """Refuse a file that is marked as ours but has other tables."""
    for table, columns in schema.columns().items():
        rows = database.execute_sql(f"PRAGMA table_info({table})").fetchall()
        if sorted((row[1], row[2]) for row in rows) != sorted(columns):
            raise damaged(path, f"its table {table!r} is not that of version {schema.version}")
    if database.execute_sql("SELECT 1 FROM changes LIMIT 1").fetchone() is None:
        raise damaged(path, "its history is empty")
