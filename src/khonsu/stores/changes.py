"""The change list of a revision: as values that cost nothing until they are looked at, and packed for the feed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from khonsu.abc.store import Change, ChangeList, Delete, Put
from khonsu.core.records import Record
from khonsu.errors import StoreDamaged
from khonsu.stores.columns import Stored
from khonsu.stores.tables import Block, Table, table_of

COMPRESSED_BYTES_MIN = 256 * 1024
"""From this size on a packed change list is compressed. Compressing lets go of the interpreter, and getting it back
beside a busy thread takes 5 ms: too much for the list of an ordinary plan."""

_COMPRESSION_LEVEL = 1
_COMPRESSED_START = b"\x78"  # of every zlib stream; packed text starts with a bracket


class BlockPut(Put):
    """A `Put` over a block: its records are made when somebody looks at them."""

    __slots__ = ("_records", "block")

    block: Block

    def __init__(self, block: Block, records: tuple[Record, ...] | None = None) -> None:
        """Keep the block, and the records where they are there already."""
        object.__setattr__(self, "kind", block.table.name)
        object.__setattr__(self, "block", block)
        object.__setattr__(self, "_records", records)

    @property
    def records(self) -> tuple[Record, ...]:
        """Return the records; they are made once."""
        made: tuple[Record, ...] | None = self._records  # type: ignore[attr-defined]
        if made is None:
            made = self.block.records()
            object.__setattr__(self, "_records", made)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Put) and (self.kind, self.records) == (other.kind, other.records)

    def __hash__(self) -> int:
        return hash((self.kind, self.block.count))

    def __repr__(self) -> str:
        return f"Put(kind={self.kind!r}, records=<{self.block.count}>)"


def rows_of(found: ChangeList) -> int:
    """Return how many rows a change list is about, without looking at them; at least one."""
    return 1 + sum(map(_rows, found.changes))


def pack(changes: Sequence[Change]) -> bytes:
    """Return a change list as bytes: JSON by column, without what has its default and without repetition."""
    parts = [_pack_put(c.block) if isinstance(c, BlockPut) else _pack_delete(c) for c in changes]
    packed = json.dumps(parts, separators=(",", ":"), allow_nan=False).encode()
    return zlib.compress(packed, _COMPRESSION_LEVEL) if len(packed) >= COMPRESSED_BYTES_MIN else packed


def unpack(packed: bytes, tables: Mapping[str, Table]) -> tuple[Change, ...]:
    """Return the change list that was packed.

    Raises:
        StoreDamaged: The bytes are no change list.

    """
    try:
        text = zlib.decompress(packed) if packed.startswith(_COMPRESSED_START) else packed
        return tuple(
            [_unpack_put(part, tables) if "put" in part else _unpack_delete(part) for part in json.loads(text)]
        )
    except (ValueError, LookupError, TypeError, zlib.error) as error:
        raise StoreDamaged(f"a list of changes cannot be read: {error}") from error


def _rows(change: Change) -> int:
    if isinstance(change, BlockPut):
        return change.block.count
    return len(change.records) if isinstance(change, Put) else len(change.keys)


def _pack_put(block: Block) -> dict[str, Any]:
    columns = block.table.columns
    same = {name: value for name, value in block.same.items() if value != columns[name].default}
    each = {name: _steps(values) or values for name, values in block.each.items()}
    return {"put": block.table.name, "count": block.count, "same": same, "each": each}


def _unpack_put(part: dict[str, Any], tables: Mapping[str, Table]) -> BlockPut:
    count: int = part["count"]
    each = {name: _unstep(values, count) for name, values in part["each"].items()}
    return BlockPut(Block(table_of(tables, part["put"]), count, each, part["same"]))


def _steps(values: list[Stored]) -> dict[str, int] | None:
    """Return numbers that rise evenly, as new ids and slots do, by their first value and step."""
    if len(values) < 2:
        return None
    first, second = values[:2]
    if type(first) is not int or type(second) is not int or first == second:
        return None
    step = second - first
    return {"from": first, "step": step} if values == list(range(first, first + step * len(values), step)) else None


def _unstep(values: Any, count: int) -> list[Stored]:
    if isinstance(values, dict):
        first, step = values["from"], values["step"]
        return list(range(first, first + step * count, step))
    return list(values)


def _pack_delete(change: Change) -> dict[str, Any]:
    if not isinstance(change, Delete):
        raise TypeError(f"{change!r} is not a change of a transaction")
    return {"delete": change.kind, "keys": change.keys, "pruned": change.pruned}


def _unpack_delete(part: dict[str, Any]) -> Delete:
    return Delete(part["delete"], tuple(part["keys"]), part["pruned"])
