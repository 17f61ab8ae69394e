"""A disk that fails on demand, and a database that waits on demand."""

from __future__ import annotations

import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import apsw
from peewee import SqliteDatabase
from playhouse.apsw_ext import APSWDatabase

if TYPE_CHECKING:
    from collections.abc import Callable


class FaultyDisk(apsw.VFS):
    """The real disk, with faults: `fault` is called before every operation with its name and the name of the file."""

    def __init__(self) -> None:
        self.name = f"faulty-{id(self)}"
        self.fault: Callable[[str, str], None] = lambda _operation, _file: None
        super().__init__(self.name, base="")

    @property
    def database(self) -> Any:
        """The database class of this disk."""
        return partial(APSWDatabase, vfs=self.name)

    def xOpen(self, name: Any, flags: Any) -> Any:  # noqa: N802 - the name that apsw calls
        """Open a file of this disk."""
        return FaultyFile(self, name, flags)

    def fail(self, operation: str, suffix: str, error: type[Exception], times: int = 1) -> None:
        """Fail the next operations of a name on files whose name ends so."""
        left = times

        def fault(found: str, file: str) -> None:
            nonlocal left
            if found == operation and file.endswith(suffix) and left:
                left -= 1
                raise error("as the test wants it")

        self.fault = fault


class FaultyFile(apsw.VFSFile):
    """A file of a faulty disk."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: Any) -> None:
        self._disk = disk
        self._name = str(name.filename() if isinstance(name, apsw.URIFilename) else name)
        super().__init__("", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.fault("read", self._name)
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        self._disk.fault("write", self._name)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.fault("sync", self._name)
        super().xSync(flags)


class Refusing(SqliteDatabase):
    """A database that refuses statements: as often as `refused` says for how one begins, done or not.

    What is in `done` is carried out first, as when the disk fails after a commit.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.refused: dict[str, int] = {}
        self.done: set[str] = set()
        super().__init__(*arguments, **options)

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement, or not."""
        start = next((start for start, times in self.refused.items() if times and sql.startswith(start)), None)
        execute: Any = super().execute_sql
        if start is None:
            return execute(sql, params)
        self.refused[start] -= 1
        if start in self.done:
            execute(sql, params)
        error = sqlite3.OperationalError("as the test wants it")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error


class Patient(SqliteDatabase):
    """A database that records its statements, and waits before each commit while its gate is closed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.statements: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        super().__init__(*arguments, **options)

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        """Execute a statement."""
        self.statements.append(sql)
        if sql == "COMMIT":
            self.reached.set()
            self.gate.wait()
        execute: Any = super().execute_sql
        return execute(sql, params)
