from __future__ import annotations

import math
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.abc.store import Delete, Put
from khonsu.core.records import KINDS, key_of
from khonsu.errors import StoreDamaged
from khonsu.stores.changes import COMPRESSED_BYTES_MIN, BlockPut, pack, unpack
from khonsu.stores.columns import REQUIRED
from khonsu.stores.tables import Block, tables
from khonsu.testing.store_samples import allocation, number, setting
from tests.effort import examples
from tests.stores.samples import records_of


@pytest.mark.parametrize("kind", list(KINDS))
@examples(30)
@given(data=st.data())
def test_records_survive_their_stored_form(kind: str, data: st.DataObject) -> None:
    """Any record comes back from a row, from a block of several, and from the packed form of the feed."""
    records = data.draw(st.lists(records_of(kind), min_size=1, max_size=3))
    table = tables()[kind]
    block = table.block_of(records)
    columns = [list(block.column(name)) for name in table.names]
    assert list(map(table.record, zip(*columns, strict=True))) == records
    assert list(block.records()) == records
    (change,) = unpack(pack([BlockPut(block)]), tables())
    assert change == Put(kind, tuple(records))
    assert [table.shown_key(key) for key in block.column(table.kind.key)] == [key_of(record) for record in records]


def test_the_packed_form_leaves_out_what_goes_without_saying() -> None:
    """Defaults, repetition and even steps take no room in the feed."""
    block = tables()["allocation"].block_of([allocation(n) for n in range(1000)])
    packed = pack([BlockPut(block)])
    assert len(packed) < 500
    (change,) = unpack(packed, tables())
    assert change == Put("allocation", block.records())


def test_a_large_list_is_compressed() -> None:
    """A change list of some size is compressed, and comes back."""
    changes = (
        BlockPut(tables()["setting"].block_of([setting("x", "y" * COMPRESSED_BYTES_MIN), setting("z")])),
        Delete("setting", ("a",), pruned=True),
    )
    packed = pack(changes)
    assert len(packed) < COMPRESSED_BYTES_MIN // 10
    assert unpack(packed, tables()) == changes


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"[",
        b"\x78\x9c",
        b'[{"put":"color"}]',
        b'[{"delete":"job"}]',
        b"[1]",
        zlib.compress(b"x"),
        b'[{"put":"color","count":1,"same":{},"each":{}}]',
    ],
)
def test_bytes_that_are_no_change_list(packed: bytes) -> None:
    """What is no change list is damage, not a crash."""
    with pytest.raises(StoreDamaged, match="cannot be read"):
        unpack(packed, tables())


def test_records_are_made_when_they_are_looked_at() -> None:
    """A put of many rows makes its records once, and only when it is asked for them."""
    put = BlockPut(tables()["allocation"].block_of([allocation(1), allocation(2)]))
    assert repr(put) == "Put(kind='allocation', records=<2>)"
    assert put.records is put.records
    assert put == Put("allocation", (allocation(1), allocation(2)))
    assert Put("allocation", (allocation(1), allocation(2))) == put
    assert put != Put("allocation", (allocation(1),))
    assert len({put, put}) == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("slot", "1", "allocation: slot cannot be '1': it is not a whole number"),
        ("slot", True, "slot cannot be True"),
        ("slot", None, "slot cannot be None"),
        ("slot", 2**63, "64 bits"),
        ("slot", -(2**63) - 1, "64 bits"),
        ("score", math.inf, "not finite"),
        ("score", "x", "not a number"),
        ("replaces", 1, "not true or false"),
        ("node", 5, "not text"),
        ("node", "\ud800", "surrogates not allowed"),
        ("node_id", "moon", "'moon' is not an id"),
        ("node_id", 7, "not an id"),
        ("status", "asleep", "is not a valid AllocationStatus"),
        ("ports", (object(),), "ports cannot be"),
    ],
)
def test_values_that_cannot_be_stored(field: str, value: Any, message: str) -> None:
    """A value that its column does not take is refused when it is put, by name, among one row or many."""
    with pytest.raises((TypeError, ValueError), match=message):
        tables()["allocation"].block_of([allocation(1, **{field: value})])
    with pytest.raises((TypeError, ValueError), match=message):
        tables()["allocation"].block_of([allocation(3), allocation(4, **{field: value})])


def test_a_row_that_cannot_be_read_is_damage() -> None:
    """A stored row with what no record has says so."""
    table = tables()["allocation"]
    row = [column.default if column.default is not REQUIRED else 1 for column in table.columns.values()]
    row[table.names.index("status")] = "asleep"
    with pytest.raises(StoreDamaged, match="a stored allocation cannot be read: 'asleep'"):
        table.record(row)
    block = Block(table, 2, {"status": ["asleep", "pending"]}, {})
    with pytest.raises(StoreDamaged, match="cannot be read"):
        block.records()


def _columns() -> dict[str, Any]:
    columns = {
        name: getattr(allocation(1), name) for name in ("namespace", "job", "version", "group", "node_id", "node")
    }
    columns |= {"evaluation": number(1), "created_at": 0.0, "changed_at": 0.0}
    return {**columns, "id": [number(1), number(2)], "slot": [1, 2]}


def test_columns_do_not_follow_their_lists() -> None:
    """What is done to a list after it was put changes nothing."""
    columns = _columns()
    block = tables()["allocation"].block_from(columns)
    columns["slot"][0] = 99
    assert list(block.column("slot")) == [1, 2]


def test_equal_values_that_are_not_the_same() -> None:
    """Among many rows, a 1 stays a 1 and a true stays a true."""
    records = (setting("a", 1), setting("b", True), setting("c", 1.0), setting("d", [True]), setting("e", [1]))
    (change,) = unpack(pack([BlockPut(tables()["setting"].block_of(records))]), tables())
    assert isinstance(change, Put)
    assert repr(change.records) == repr(records)


def test_a_block_takes_records_of_its_kind_only() -> None:
    """A record of another kind is refused."""
    with pytest.raises(TypeError, match="allocation takes Allocation, not Setting"):
        tables()["allocation"].block_of([allocation(1), setting("a")])
