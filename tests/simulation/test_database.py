from __future__ import annotations

import random
from typing import Any

import apsw
import peewee
import pytest

from khonsu.testing.simulation.database import SimDatabaseDisk

CUTS = 3
FAILURES = (apsw.Error, peewee.DatabaseError)


def opened(disk: SimDatabaseDisk, synchronous: str) -> Any:
    """Open a database as the store does, with small logs."""
    pragmas = [("locking_mode", "EXCLUSIVE"), ("journal_mode", "wal"), ("synchronous", synchronous)]
    database = disk.database()("/state.db", pragmas=[*pragmas, ("wal_autocheckpoint", 20)])
    database.connect()
    database.execute_sql("create table if not exists t (k integer primary key, v blob)")
    return database


def look(database: Any, acknowledged: dict[int, int]) -> str:
    """Return what has become of what was acknowledged."""
    if database.execute_sql("pragma integrity_check").fetchone()[0] != "ok":
        return "corrupt"
    rows = dict(database.execute_sql("select k, length(v) from t").fetchall())
    return "lost" if any(rows.get(key) != length for key, length in acknowledged.items()) else "whole"


def trial(seed: int, synchronous: str) -> str:
    """Write, and cut the power, three times; return what has become of what was acknowledged."""
    work = random.Random(f"{seed}/work")
    disk = SimDatabaseDisk(random.Random(f"{seed}/disk"))
    acknowledged: dict[int, int] = {}
    found = "whole"
    try:
        for _ in range(CUTS):
            database = opened(disk, synchronous)
            if (found := look(database, acknowledged)) != "whole":
                return found
            for _ in range(work.randrange(5, 60)):
                key, length = len(acknowledged) + 1, work.randrange(10, 6000)
                database.execute_sql("begin immediate")
                database.execute_sql("insert or replace into t values (?, ?)", (key, work.randbytes(length)))
                database.execute_sql("commit")
                acknowledged[key] = length
            disk.power_cut()
        return look(opened(disk, synchronous), acknowledged)
    except FAILURES:
        return "corrupt"


def test_nothing_that_was_waited_for_is_lost() -> None:
    """With `synchronous=FULL`, 200 trials of three power cuts lose nothing."""
    assert {trial(seed, "FULL") for seed in range(200)} == {"whole"}


def test_what_was_not_waited_for_is_lost() -> None:
    """With `synchronous=NORMAL` acknowledged commits are lost, and with `OFF` files are damaged."""
    assert "lost" in {trial(seed, "NORMAL") for seed in range(20)}
    assert "corrupt" in {trial(seed, "OFF") for seed in range(40)}


def test_a_disk_that_lies_loses_what_was_waited_for() -> None:
    """A disk that only says that something is safe loses it."""
    disk = SimDatabaseDisk(random.Random(1))
    database = opened(disk, "FULL")
    disk.lies = 1.0
    database.execute_sql("insert into t values (1, 'x')")
    disk.power_cut()
    assert look(opened(disk, "FULL"), {1: 1}) == "lost"


def test_a_full_disk_refuses_and_recovers() -> None:
    """A full disk refuses a write, and takes it when there is room."""
    disk = SimDatabaseDisk(random.Random(1))
    database = opened(disk, "FULL")
    disk.full = True
    with pytest.raises(FAILURES):
        database.execute_sql("insert into t values (1, zeroblob(100000))")
    disk.full = False
    database.execute_sql("insert into t values (1, zeroblob(100000))")
    assert look(database, {1: 100_000}) == "whole"


def test_a_dead_run_changes_nothing() -> None:
    """What was opened before the next run began writes to a copy that nobody sees."""
    disk = SimDatabaseDisk(random.Random(1))
    dead = opened(disk, "FULL")
    dead.execute_sql("insert into t values (1, 'x')")
    database = opened(disk, "FULL")
    dead.execute_sql("insert into t values (2, 'ghost')")
    dead.close()
    assert database.execute_sql("select k from t").fetchall() == [(1,)]
    disk.power_cut()
    assert look(opened(disk, "FULL"), {1: 1}) == "whole"
