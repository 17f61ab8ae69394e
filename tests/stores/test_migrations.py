"""Files of older versions are brought up in one transaction, or left as they are."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.errors import HistoryGone, StoreError, StoreTooNew
from khonsu.stores.schema import SCHEMA_VERSION, Migration, Schema
from khonsu.stores.sqlite import SQLiteStore
from khonsu.stores.tables import tables
from khonsu.testing.store_samples import records, setting
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return one event loop: it makes no difference to files."""
    return "trio"


LAYOUT = "512f9217756628c4"
"""The digest of `Schema().layout()` at `SCHEMA_VERSION`."""


def add_pool(database: Any) -> None:
    """Add a column that nodes lacked."""
    database.execute_sql("ALTER TABLE node ADD COLUMN pool TEXT")
    database.execute_sql("UPDATE node SET pool = 'default'")


def drop_color(database: Any) -> None:
    """Drop a column that settings had."""
    database.execute_sql("ALTER TABLE setting DROP COLUMN color")


STEPS = (Migration(2, add_pool), Migration(3, drop_color))


def schema(*steps: Migration, version: int = 3) -> Schema:
    """Return the present tables as a version of their own, with a way up."""
    return Schema(version, tables(), steps)


@pytest.fixture
async def old_path(tmp_path: Path) -> Path:
    """Make a file whose tables are those of two versions ago."""
    path = tmp_path / "state.db"
    async with SQLiteStore(path) as store:
        await store.write(put(*records()))
        await store.write(put_setting("a", 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE node SET pool = 'default'")
        connection.execute("ALTER TABLE node DROP COLUMN pool")
        connection.execute("ALTER TABLE setting ADD COLUMN color TEXT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def layout(path: Path) -> list[Any]:
    """Return the names and types of all columns of a file, and its version."""
    with closing(sqlite3.connect(path)) as connection:
        columns = "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m, pragma_table_info(m.name) c ORDER BY 1, 2"
        indexes = "SELECT tbl_name, name, sql FROM sqlite_master WHERE type = 'index' ORDER BY 1, 2"
        version = connection.execute("PRAGMA user_version").fetchall()
        return [*connection.execute(columns), *connection.execute(indexes), *version]


async def test_an_older_file_is_brought_up(old_path: Path, tmp_path: Path) -> None:
    """A file of an older version is brought to the present one, with all its records, and ends its feed."""
    async with SQLiteStore(old_path, schema=schema(*STEPS)) as store:
        assert await store.read(lambda view: view.revision) == Revision(0, 2)
        assert await store.read(lambda view: view.get("setting", "a")) == setting("a", 1)
        assert {node.pool for node in await store.read(lambda view: view.find("node"))} == {"default"}  # type: ignore[union-attr]
        for after in (ZERO, Revision(0, 1)):
            with pytest.raises(HistoryGone, match="are pruned"):
                await take(store, after, 1)
        assert (await store.write(put_setting("b"))).revision == Revision(0, 3)
        assert [found.revision.number for found in await take(store, Revision(0, 2), 1)] == [3]
    new = tmp_path / "new.db"
    async with SQLiteStore(new, schema=schema()):
        pass
    assert layout(old_path) == layout(new)
    with pytest.raises(StoreTooNew, match="version 3, and this one knows 2"):
        async with SQLiteStore(old_path, schema=schema(version=2)):
            pass


async def test_a_file_of_any_older_version_is_brought_up(old_path: Path) -> None:
    """Only the steps that a file needs are taken."""
    async with SQLiteStore(old_path, schema=schema(*STEPS)):
        pass
    steps = (*STEPS, Migration(4, lambda database: database.execute_sql("DELETE FROM setting")))
    async with SQLiteStore(old_path, schema=schema(*steps, version=4)) as store:
        assert await store.read(lambda view: view.find("setting")) == []
        assert len(await store.read(lambda view: view.find("node"))) == 2


def fail(_: object) -> None:
    """Fail."""
    raise sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(STEPS[:1], "there is no way from version 1 of the state file to 3", id="a step is missing"),
        pytest.param(STEPS[1:], "there is no way", id="the first step is missing"),
        pytest.param((STEPS[0], Migration(3, lambda _: None)), "'setting' is not that of version 3", id="not enough"),
        pytest.param((STEPS[0], Migration(3, fail)), "disk I/O error", id="a step fails"),
    ],
)
async def test_a_way_up_that_fails_changes_nothing(
    old_path: Path, steps: tuple[Migration, ...], message: str, snapshot: Callable[[Path], object]
) -> None:
    """When a step is missing or fails, the file is as it was."""
    before = snapshot(old_path)
    with pytest.raises((StoreError, sqlite3.OperationalError), match=message):
        async with SQLiteStore(old_path, schema=schema(*steps)):
            pass
    assert snapshot(old_path) == before
    async with SQLiteStore(old_path, schema=schema(*STEPS)) as store:
        assert await store.read(lambda view: view.get("setting", "a")) == setting("a", 1)


@pytest.fixture
def snapshot() -> Callable[[Path], object]:
    """Return what reads all of a file."""
    return lambda path: (path.read_bytes(), layout(path))


def test_the_layout_is_that_of_its_version() -> None:
    """Records look as they did when the version of the schema was last raised.

    When this fails, a field, a default or a type of a record has changed. State files of users have the old layout:
    raise `SCHEMA_VERSION`, add a `Migration` with a test, and put the new digest here.
    """
    found = hashlib.sha256(Schema().layout().encode()).hexdigest()[:16]
    assert (SCHEMA_VERSION, found) == (1, LAYOUT), Schema().layout()
