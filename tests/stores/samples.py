"""What the tests of stores share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import strategies as st

from khonsu.core.ids import TERM_MAX, key_text, make_key
from khonsu.core.records import KINDS
from khonsu.stores.tables import tables
from khonsu.testing.store_samples import setting
from tests.strategies import instances

if TYPE_CHECKING:
    from collections.abc import Callable

    from khonsu.abc.store import ChangeList, Store, Transaction
    from khonsu.core.records import Record
    from khonsu.core.revision import Revision

IDS = st.builds(make_key, st.integers(0, TERM_MAX), st.integers(0, 2**40 - 1)).map(key_text)


def put(*records: Record) -> Callable[[Transaction], None]:
    """Return a transaction that puts records."""
    return lambda transaction: transaction.put(*records)


def put_setting(key: str, value: object = None) -> Callable[[Transaction], None]:
    """Return a transaction that puts a setting."""
    return put(setting(key, value))


async def take(store: Store, after: Revision, count: int) -> list[ChangeList]:
    """Return the next change lists after a revision."""
    found: list[ChangeList] = []
    async with store.watch(after) as lists:
        async for changes in lists:
            found.append(changes)
            if len(found) == count:
                break
    return found


@st.composite
def records_of(draw: st.DrawFn, kind: str) -> Any:
    """Return a record of a kind; its ids are ids."""
    record = draw(instances(KINDS[kind].type))
    ids = [c.name for c in tables()[kind].columns.values() if c.form is tables()["node"].columns["id"].form]
    return attrs.evolve(record, **{name: draw(IDS) for name in ids if getattr(record, name) is not None})
