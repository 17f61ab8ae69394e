"""Writing rows in bulk: one statement for all rows of a table, as far as SQLite's limit on variables lets it.

Python's sqlite3 lets go of the interpreter for each statement, and beside a busy thread it takes 5 ms to get it back.
So the number of statements is what counts, and the rows of all writes of a group go together. Rows are bound as values
(`VALUES`), not as JSON: that is faster, and exact for real numbers on every platform.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby, repeat
from typing import Any, TypeAlias

from khonsu.stores.tables import Block

Database: TypeAlias = Any
"""A peewee database for SQLite; peewee has no types."""

VARIABLES_MAX = 32_766
"""In one statement: what every SQLite since 3.32 takes. A prepared statement keeps 150 bytes for each."""

_ROWS = (1, 4, 16, 64, 256, 1024, 4096)
"""For how many rows there are statements: few, so that they stay prepared. A `LIMIT` cuts off what is not filled."""

_SHAPED_ROWS_MIN = 64
"""From so many rows on, columns with one value for all of them are bound once. Fewer rows bind every column, so that
there is one statement for them and not one for each set of columns that happen to differ."""


def insert_blocks(database: Database, blocks: Sequence[Block]) -> None:
    """Write blocks of one table, in their order: a later row replaces an earlier one with the same key."""
    for _, run in groupby(blocks, key=_bulky):
        _insert(database, list(run))


def insert_columns(
    database: Database,
    table: str,
    each: Sequence[tuple[str, Sequence[object]]],
    same: Sequence[tuple[str, object]] = (),
) -> None:
    """Write rows given by column, at least one: columns with one value per row, and those with one for all."""
    constant, values = tuple(name for name, _ in same), [value for _, value in same]
    varying = tuple(name for name, _ in each)
    width, count = len(varying), len(each[0][1])
    rows_max = min(_ROWS[-1], (VARIABLES_MAX - len(constant) - 1) // width)
    for start in range(0, count, rows_max):
        rows = min(rows_max, count - start)
        size = min(rows_max, next(size for size in _ROWS if size >= rows))
        flat: list[object] = [None] * (size * width)
        for place, (_, column) in enumerate(each):
            flat[place : rows * width : width] = column[start : start + rows]
        database.execute_sql(_statement(table, constant, varying, size), [*values, *flat, rows])


def _bulky(block: Block) -> bool:
    return block.count >= _SHAPED_ROWS_MIN


def _insert(database: Database, blocks: list[Block]) -> None:
    table = blocks[0].table
    if _bulky(blocks[0]):
        varying = {table.kind.key, *(name for block in blocks for name in block.each)}
        varying |= {name for name in table.names if len({block.constant(name) for block in blocks}) > 1}
    else:
        varying = set(table.names)
    each = [(n, [value for block in blocks for value in block.column(n)]) for n in table.names if n in varying]
    same = [(n, blocks[0].constant(n)) for n in table.names if n not in varying]
    insert_columns(database, table.name, each, same)


@lru_cache(maxsize=64)
def _statement(table: str, constant: tuple[str, ...], varying: tuple[str, ...], rows: int) -> str:
    """Return the statement for a number of rows: constants first, then the rows, then how many of them count."""
    names = _listed(f'"{name}"' for name in (*constant, *varying))
    picked = _listed([*repeat("?", len(constant)), *(f"column{place + 1}" for place in range(len(varying)))])
    row = f"({_listed(repeat('?', len(varying)))})"
    return (
        f'INSERT OR REPLACE INTO "{table}" ({names}) SELECT {picked} FROM (VALUES {_listed(repeat(row, rows))}) LIMIT ?'
    )


def _listed(parts: Iterable[str]) -> str:
    return ",".join(parts)
