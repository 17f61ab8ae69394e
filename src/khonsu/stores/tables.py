"""Tables: kinds of records by column, and blocks of their rows on the way to a table and to the change feed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import repeat
from operator import attrgetter
from typing import Any, cast

import attrs
from attrs import frozen

from khonsu.abc.store import Columns
from khonsu.core.ids import key_text, parse_key
from khonsu.core.records import KINDS, Kind, Record
from khonsu.errors import InvalidRequest, StoreDamaged
from khonsu.stores.columns import REQUIRED, Column, Stored, column_of


class Table:
    """One kind of record as a table."""

    def __init__(self, kind: Kind) -> None:
        """Read the columns off the fields of the record."""
        attributes: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(kind.type))
        self.kind = kind
        self.name = kind.name
        self.columns: Mapping[str, Column] = {
            a.name: column_of(a, numbered=kind.numbered and a.name == kind.key) for a in attributes
        }
        self.names = tuple(self.columns)
        forms = [column.form for column in self.columns.values()]
        self._decoders = [(index, form.decode) for index, form in enumerate(forms) if form.decode is not None]
        self._key_of = attrgetter(kind.key)

    def stored_key(self, key: str) -> int | str | None:
        """Return a key as it is stored; None if no record can have it."""
        if not self.kind.numbered:
            return key
        try:
            return parse_key(key)
        except ValueError:
            return None

    def shown_key(self, stored: Stored) -> str:
        """Return a stored key as its text."""
        return key_text(cast("int", stored)) if self.kind.numbered else cast("str", stored)

    def key_of(self, record: Record) -> int | str:
        """Return the key of a record, as it is stored."""
        return cast("int | str", self.columns[self.kind.key].encode(self._key_of(record)))

    def column(self, name: str) -> Column:
        """Return a column.

        Raises:
            TypeError: There is no such field.

        """
        try:
            return self.columns[name]
        except KeyError:
            raise TypeError(f"{self.name} has no field {name!r}; it has {', '.join(self.names)}") from None

    def record(self, row: Sequence[Stored]) -> Record:
        """Return the record of a row of all columns.

        Raises:
            StoreDamaged: The row cannot be read.

        """
        values: list[Any] = list(row)
        try:
            for index, decode in self._decoders:
                if values[index] is not None:
                    values[index] = decode(values[index])
            return self.kind.type(**dict(zip(self.names, values, strict=True)))
        except _UNREADABLE as error:
            raise _unreadable(self, error) from error

    def block_of(self, records: Sequence[Record]) -> Block:
        """Return records as a block."""
        wrong = next((record for record in records if type(record) is not self.kind.type), None)
        if wrong is not None:
            raise TypeError(f"{self.name} takes {self.kind.type.__name__}, not {type(wrong).__name__}")
        count = len(records)
        each: dict[str, list[Stored]] = {}
        same: dict[str, Stored] = {}
        with _named(self.name):
            for name, column in self.columns.items():
                values = [getattr(records[0], name)] if count == 1 else list(map(attrgetter(name), records))
                if count == 1 or _all_the_same(values, column):
                    same[name] = column.encode(values[0])
                    continue
                stored = column.encode_many(values)
                if stored.count(stored[0]) == count:
                    same[name] = stored[0]
                else:
                    each[name] = stored
        return Block(self, count, each, same)

    def block_from(self, columns: Columns) -> Block:
        """Return records that are given by column as a block.

        Raises:
            TypeError: A field is not known, or missing, or does not take such values.
            ValueError: The columns have different lengths, or hold what cannot be stored.

        """
        missing = [c.name for c in self.columns.values() if c.default is REQUIRED and c.name not in columns]
        if missing:
            raise TypeError(f"{self.name} needs {', '.join(missing)}")
        each: dict[str, list[Stored]] = {}
        same: dict[str, Stored] = {}
        with _named(self.name):
            for name, values in columns.items():
                if isinstance(values, (list, tuple)):
                    each[name] = self.column(name).encode_many(values)
                else:
                    same[name] = self.column(name).encode(values)
        lengths = {name: len(values) for name, values in each.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"{self.name}: the columns have different lengths: {lengths}")
        return Block(self, next(iter(lengths.values()), 1), each, same)


@frozen(eq=False)
class Block:
    """Rows of one table in their stored form, by column.

    Args:
        table: The table.
        count: The number of rows.
        each: Columns with one value per row.
        same: Columns with one value for all rows. A column that is in neither has its default.

    """

    table: Table
    count: int
    each: Mapping[str, list[Stored]]
    same: Mapping[str, Stored]

    def column(self, name: str) -> Iterable[Stored]:
        """Return the values of one column, row by row."""
        values = self.each.get(name)
        return repeat(self.constant(name), self.count) if values is None else values

    def constant(self, name: str) -> Stored:
        """Return the value that a column has in all rows."""
        default = self.table.columns[name].default
        return self.same.get(name, None if default is REQUIRED else default)

    def records(self) -> tuple[Record, ...]:
        """Return the rows as records.

        Raises:
            StoreDamaged: A row cannot be read.

        """
        build = cast("Callable[..., Record]", self.table.kind.type)
        columns: list[Iterable[Any]] = []
        names = self.table.names
        try:
            for name, column in self.table.columns.items():
                if name in self.each:
                    columns.append(column.decode_many(self.each[name]))
                else:
                    columns.append(repeat(column.decode(self.constant(name)), self.count))
            return tuple([build(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True)])
        except _UNREADABLE as error:
            raise _unreadable(self.table, error) from error


def _all_the_same(values: list[Any], column: Column) -> bool:
    """Return whether one stored form will do. In JSON, 1 and True are equal and yet not the same."""
    if column.form.compared:
        return values.count(values[0]) == len(values)
    return len(set(map(id, values))) == 1


_UNREADABLE = (TypeError, ValueError, KeyError, InvalidRequest)


def _unreadable(table: Table, error: Exception) -> StoreDamaged:
    return StoreDamaged(f"a stored {table.name} cannot be read: {error}")


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Put the name of the kind before the errors of its values."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


@cache
def tables() -> Mapping[str, Table]:
    """Return the tables of all kinds of records."""
    return {name: Table(kind) for name, kind in KINDS.items()}


def table_of(every: Mapping[str, Table], kind: str) -> Table:
    """Return the table of a kind.

    Raises:
        TypeError: There is no such kind.

    """
    try:
        return every[kind]
    except KeyError:
        raise TypeError(f"there is no kind {kind!r}; there are {', '.join(every)}") from None
