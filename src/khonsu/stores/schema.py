"""The schema of the state file: its tables as peewee models, its version, and the way up from older ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import field, frozen
from peewee import BlobField, DoubleField, Field, IntegerField, Model, TextField

from khonsu.errors import StoreError
from khonsu.stores.bulk import Database
from khonsu.stores.columns import REQUIRED
from khonsu.stores.tables import Table, tables

ModelClass: TypeAlias = Any  # a peewee model; peewee has no types

SCHEMA_VERSION = 1
"""Raised, with a migration, by every change of a record's fields, of their defaults or of how they are stored."""

_FIELDS: Mapping[str, type[Field]] = {"INTEGER": IntegerField, "REAL": DoubleField, "TEXT": TextField}


@frozen
class Migration:
    """One step up. `apply` gets the database inside the transaction of the whole way up."""

    version: int
    """The version that it leads to."""
    apply: Callable[[Database], None]


MIGRATIONS: tuple[Migration, ...] = ()


@frozen
class Schema:
    """What the tables of a state file are to be.

    Args:
        version: Its version, kept in SQLite's `user_version`.
        tables: The tables of records by name.
        migrations: The steps up from older versions, in order.

    """

    version: int = SCHEMA_VERSION
    tables: Mapping[str, Table] = field(factory=tables)
    migrations: tuple[Migration, ...] = MIGRATIONS

    def models(self, database: Database) -> dict[str, ModelClass]:
        """Return the models of the tables of records, bound to a database."""
        return {name: _model(table, database) for name, table in self.tables.items()}

    def create(self, database: Database) -> None:
        """Create all tables in an empty database, and the first entry of the feed."""
        database.create_tables([*self.models(database).values(), _changes_model(database)], safe=False)
        database.execute_sql("INSERT INTO changes VALUES (0, 0, ?, 0, x'5b5d')", (self.version,))
        database.execute_sql(f"PRAGMA user_version = {self.version}")

    def migrate(self, database: Database, found: int) -> None:
        """Go up from an older version. The feed ends: its entries are of the old tables.

        Raises:
            StoreError: There is no way up from that version.

        """
        steps = [step for step in self.migrations if found < step.version <= self.version]
        if [step.version for step in steps] != list(range(found + 1, self.version + 1)):
            raise StoreError(f"there is no way from version {found} of the state file to {self.version}")
        for step in steps:
            step.apply(database)
        database.execute_sql("DELETE FROM changes WHERE revision < (SELECT max(revision) FROM changes)")
        database.execute_sql(f"PRAGMA user_version = {self.version}")

    def columns(self) -> dict[str, list[tuple[str, str]]]:
        """Return names and types of the columns that each table is to have."""
        found: dict[str, list[tuple[str, str]]] = {"changes": list(_CHANGES.items())}
        for name, table in self.tables.items():
            found[name] = [(column.name, column.form.affinity) for column in table.columns.values()]
        return found

    def layout(self) -> str:
        """Return all that a migration has to know of: tables, columns, keys, indexes and defaults."""
        lines = []
        for name, table in self.tables.items():
            lines.append(f"{name} key={table.kind.key} indexes={','.join(table.kind.indexes)}")
            for c in table.columns.values():
                default = "" if c.default is REQUIRED else f" default {c.default!r}"
                lines.append(f"  {c.name} {c.form.affinity}{default}")
        return "\n".join(lines)


_CHANGES = {"revision": "INTEGER", "term": "INTEGER", "schema": "INTEGER", "at": "REAL", "packed": "BLOB"}


def _model(table: Table, database: Database) -> ModelClass:
    """Return the model of a table. Keys that are numbers are row ids; nothing is constrained that Python checks."""
    fields: dict[str, Any] = {}
    for column in table.columns.values():
        if column.name == table.kind.key:
            fields[column.name] = _FIELDS[column.form.affinity](primary_key=True)
        else:
            fields[column.name] = _FIELDS[column.form.affinity](null=True, index=column.name in table.kind.indexes)
    return _make_model(table.name, database, fields, without_rowid=not table.kind.numbered)


def _changes_model(database: Database) -> ModelClass:
    """Return the model of the feed: one row for each revision, with the time it was committed at."""
    fields = {
        "revision": IntegerField(primary_key=True),
        "term": IntegerField(),
        "schema": IntegerField(),
        "at": DoubleField(),
        "packed": BlobField(),
    }
    return _make_model("changes", database, fields, without_rowid=False)


def _make_model(name: str, database: Database, fields: dict[str, Any], *, without_rowid: bool) -> ModelClass:
    options = {"table_name": name, "database": database, "strict_tables": True, "without_rowid": without_rowid}
    meta: Any = type(Model)
    return meta(f"{name}_row", (Model,), {**fields, "Meta": type("Meta", (), options)})
