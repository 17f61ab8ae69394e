"""What a state file is, and which files are refused without a change."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from khonsu.core.revision import ZERO, Revision
from khonsu.errors import StoreDamaged, StoreError, StoreForeign, StoreInUse, StoreTooNew
from khonsu.stores.file import APPLICATION_ID, sqlite_warnings
from khonsu.stores.schema import SCHEMA_VERSION
from khonsu.stores.sqlite import SQLiteStore
from khonsu.testing.store_samples import allocation
from tests.stores.samples import put, put_setting, take

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return one event loop: it makes no difference to files."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a path where nothing is yet."""
    return tmp_path / "state.db"


async def fill(path: Path, rows: int = 500) -> None:
    """Make a state file with some allocations in it."""
    async with SQLiteStore(path) as store:
        await store.write(put(*map(allocation, range(rows))))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return bytes and time of change of all files in a folder."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir() if file.is_file()}


def names(folder: Path) -> list[str]:
    """Return the names of what is in a folder."""
    return sorted(file.name for file in folder.iterdir())


def modes(folder: Path) -> set[int]:
    """Return the modes of all files in a folder."""
    return {file.stat().st_mode & 0o777 for file in folder.iterdir()}


def seen_from_outside(path: Path) -> object:
    """Return bytes and time of change of a file that is open here, without opening it here: that would unlock it."""
    return subprocess.run(["cat", path], capture_output=True, check=True).stdout, path.stat().st_mtime_ns


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run another Python."""
    return subprocess.run([sys.executable, "-c", *arguments], capture_output=True, text=True, check=False)


def change(path: Path, *statements: str) -> None:
    """Change a database by hand."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def refused(path: Path, kind: type[StoreError], message: str) -> None:
    """Check that opening a file fails and changes nothing, not even when it is tried twice."""
    before = contents(path.parent)
    for _ in range(2):
        with pytest.raises(kind, match=message) as caught:
            async with SQLiteStore(path):
                pass
        assert type(caught.value) is kind
        assert str(path) in str(caught.value)
    assert contents(path.parent) == before


async def test_a_new_file(path: Path) -> None:
    """A new file is readable by its owner only, says whose it is, and leaves nothing beside it when it is closed."""
    async with SQLiteStore(path) as store:
        assert store.path == path
        assert await store.read(lambda view: view.revision) == ZERO
        await store.write(put_setting("a"))
        assert modes(path.parent) == {0o600}
        assert names(path.parent) == ["state.db", "state.db-wal"]
    assert names(path.parent) == ["state.db"]
    with closing(sqlite3.connect(path)) as connection:
        for pragma, expected in (
            ("application_id", APPLICATION_ID),
            ("user_version", SCHEMA_VERSION),
            ("journal_mode", "wal"),
            ("integrity_check", "ok"),
        ):
            assert connection.execute(f"PRAGMA {pragma}").fetchone() == (expected,)


async def test_how_sqlite_is_told_to_treat_the_file(path: Path) -> None:
    """Nothing is acknowledged before it is on the disk, and nobody else gets at the file."""
    async with SQLiteStore(path) as store:
        database = store._engine._open_parts()[0]

        def pragmas(_: object) -> list[object]:
            names = ("journal_mode", "synchronous", "locking_mode", "fullfsync", "checkpoint_fullfsync")
            return [database.execute_sql(f"PRAGMA {name}").fetchone()[0] for name in names]

        assert await store.read(pragmas) == ["wal", 2, "exclusive", 1, 1]


@pytest.mark.parametrize("name", ["plain.db", "with space.db", "odd?#%20.db", "☾.db", ":memory:"])
async def test_any_name_will_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have any name, and a relative path stays what it was when the folder changes."""
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore(name)
    monkeypatch.chdir("/")
    async with store:
        await store.write(put_setting("a"))
    async with SQLiteStore(tmp_path / name) as again:
        assert await again.read(lambda view: view.revision) == Revision(0, 1)
    assert names(tmp_path) == [name]


async def test_an_empty_file_is_a_new_one(path: Path) -> None:
    """A file of no bytes, as `touch` makes it, becomes a state file."""
    os.close(os.open(path, os.O_CREAT))
    await fill(path)
    async with SQLiteStore(path) as store:
        assert await store.read(lambda view: len(view.find("allocation"))) == 500


async def test_a_store_that_is_opened_twice_keeps_its_file(path: Path) -> None:
    """A store can be entered again after it was left."""
    store = SQLiteStore(path)
    for number in range(1, 4):
        async with store:
            assert (await store.write(put_setting("a"))).revision == Revision(0, number)
            assert len(await take(store, ZERO, number)) == number


# ------------------------------------------------------------------------------------------------------------- damage


def overwrite(offset: int, data: bytes) -> Callable[[Path], None]:
    """Return what overwrites bytes of a file; a negative offset counts from its end."""

    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
            file.write(data)

    return damage


def cut(size: int) -> Callable[[Path], None]:
    """Return what cuts a file; a negative size is what is taken off."""

    def damage(path: Path) -> None:
        os.truncate(path, size if size >= 0 else path.stat().st_size + size)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(overwrite(0, b"This is a text and no database at all"), id="text"),
        pytest.param(overwrite(0, bytes(4096)), id="zeros"),
        pytest.param(overwrite(16, b"\x00\x03"), id="page-size"),
        pytest.param(overwrite(4096, b"\xff" * 4096), id="second-page"),
        pytest.param(overwrite(-4096, b"\xff" * 4096), id="last-page"),
        pytest.param(overwrite(110, b"\xff" * 200), id="schema"),
        pytest.param(cut(1), id="one-byte"),
        pytest.param(cut(50), id="half-a-header"),
        pytest.param(cut(512), id="a-small-page"),
        pytest.param(cut(4095), id="almost-a-page"),
        pytest.param(cut(5000), id="one-page-and-a-bit"),
        pytest.param(cut(-4096), id="a-page-less"),
        pytest.param(cut(-1), id="a-byte-less"),
    ],
)
async def test_a_damaged_file_is_refused(path: Path, damage: Callable[[Path], None]) -> None:
    """A file that is no database, is cut, or does not hold together is refused as damaged."""
    await fill(path)
    damage(path)
    await refused(path, StoreDamaged, "is damaged.*Nothing was changed")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE setting",
        "ALTER TABLE node ADD COLUMN color TEXT",
        "ALTER TABLE changes RENAME COLUMN packed TO list",
    ],
)
async def test_other_tables_are_damage(path: Path, statement: str) -> None:
    """A file that says that it is ours but has other tables is refused."""
    await fill(path)
    change(path, statement)
    await refused(path, StoreDamaged, "its table .* is not that of version 1")


async def test_a_file_without_a_history_is_damage(path: Path) -> None:
    """The history is never without an entry: a file where it is was changed by somebody else."""
    await fill(path)
    change(path, "DELETE FROM changes")
    await refused(path, StoreDamaged, "its history is empty")


async def test_a_damaged_page_of_a_large_file_shows_when_it_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is too large to be checked at the opening opens, and reading its damaged page says so."""
    await fill(path, 5000)
    monkeypatch.setattr("khonsu.stores.file.CHECKED_BYTES_MAX", 4096)
    overwrite(-30 * 4096, b"\xff" * 4096)(path)
    async with SQLiteStore(path) as store:
        with pytest.raises(StoreDamaged, match="is damaged"):
            await store.read(lambda view: view.find("allocation"))


# ----------------------------------------------------------------------------------------------- others and newer ones


async def test_a_file_of_another_program_is_refused(path: Path) -> None:
    """A database of another program is refused, whether it says whose it is or not, in any journal mode."""
    change(path, "CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('mine')")
    await refused(path, StoreForeign, "is a SQLite file of another program. Nothing was changed")
    change(path, "PRAGMA application_id = 252006")
    await refused(path, StoreForeign, "another program")
    change(path, "PRAGMA journal_mode = WAL", f"PRAGMA application_id = {APPLICATION_ID + 1}")
    await refused(path, StoreForeign, "another program")


async def test_a_newer_file_is_refused(path: Path) -> None:
    """A file of a newer version is refused, and says both versions."""
    await fill(path)
    change(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    await refused(path, StoreTooNew, r"newer Khonsu: version 2, and this one knows 1\. Nothing was changed")


@pytest.mark.parametrize(
    ("statements", "kind"),
    [
        (["PRAGMA application_id = 0"], StoreForeign),
        ([f"PRAGMA user_version = {SCHEMA_VERSION + 1}"], StoreTooNew),
        (["DROP TABLE setting"], StoreDamaged),
    ],
)
async def test_what_only_the_log_says(path: Path, statements: list[str], kind: type[StoreError]) -> None:
    """A file is refused also where only the log of a crashed writer says why, and the log is still there to be read."""
    await fill(path)
    crash = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
    python(crash + "[c.execute(s) for s in sys.argv[2:]]; os._exit(0)", str(path), *statements)
    assert "state.db-wal" in names(path.parent)
    for _ in range(2):
        with pytest.raises(kind):
            async with SQLiteStore(path):
                pass


# ------------------------------------------------------------------------------------------------------------- the lock


async def test_one_process_at_a_time(path: Path) -> None:
    """A second process is refused at once, with the path, and the first one goes on; after its end the second may."""
    await fill(path)
    other = "import anyio, sys; from khonsu.stores.sqlite import SQLiteStore\nasync def main():\n"
    other += (
        " async with SQLiteStore(sys.argv[1]) as store: print((await store.read(lambda view: view.revision)).number)\n"
    )
    command = [other + "anyio.run(main)", str(path)]
    async with SQLiteStore(path) as store:
        await store.write(put_setting("a"))
        before = seen_from_outside(path)
        assert f"StoreInUse: {path} is in use by another process" in python(*command).stderr
        assert seen_from_outside(path) == before
        await store.write(put_setting("b"))
        with pytest.raises(StoreInUse):  # by this process itself
            async with SQLiteStore(path):
                pass
        assert (await store.write(put_setting("c"))).revision == Revision(0, 4)
        # Nothing of the above let go of the lock.
        assert "StoreInUse" in python(*command).stderr
    tried = python(*command)
    assert (tried.stdout, tried.stderr) == ("4\n", "")


async def test_a_reader_of_another_program_keeps_us_out(path: Path) -> None:
    """While another program has the file open in the usual way, the store is not opened."""
    await fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("SELECT * FROM setting").fetchall()
        with pytest.raises(StoreInUse):
            async with SQLiteStore(path):
                pass
    async with SQLiteStore(path) as store:
        with (
            closing(sqlite3.connect(path, timeout=0)) as connection,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            connection.execute("SELECT * FROM setting")
        await store.write(put_setting("a"))


# ------------------------------------------------------------------------------------------------------ wrong places


async def test_wrong_places(tmp_path: Path) -> None:
    """Where no file can be, the error says why, and nothing is made."""
    (tmp_path / "file").touch()
    cases = {
        tmp_path / "not" / "there" / "state.db": f"the folder {tmp_path}/not/there does not exist",
        tmp_path: "it is a folder",
        tmp_path / "file" / "state.db": f"{tmp_path}/file is not a folder",
        Path("/proc/state.db"): "",
    }
    for path, why in cases.items():
        with pytest.raises(StoreError, match=f"{path} cannot be opened for writing: .*{why}"):
            async with SQLiteStore(path):
                pass
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_places_that_are_not_ours(tmp_path: Path) -> None:
    """A folder or file without permission is named."""
    await fill(tmp_path / "state.db")
    (tmp_path / "state.db").chmod(0o000)
    with pytest.raises(StoreError, match="its mode does not allow it"):
        async with SQLiteStore(tmp_path / "state.db"):
            pass
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="is not writable"):
        async with SQLiteStore(tmp_path / "locked" / "state.db"):
            pass


@pytest.mark.parametrize(
    ("version", "count"), [((3, 6, 23), 0), ((3, 7, 0), 1), ((3, 40, 1), 1), ((3, 51, 2), 1), ((3, 51, 3), 0)]
)
def test_versions_of_sqlite_to_be_told_of(version: tuple[int, int, int], count: int) -> None:
    """A SQLite with the bug of the log's reset is told of, and that the store is safe from it."""
    warnings = sqlite_warnings(version)
    assert len(warnings) == count
    assert all("cannot happen to it" in warning for warning in warnings)
    assert SQLiteStore("x.db").warnings == sqlite_warnings(sqlite3.sqlite_version_info)
