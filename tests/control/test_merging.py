"""How the changes of a group become few statements."""

from __future__ import annotations

import pytest

from khonsu.abc.store import Delete, Put
from khonsu.control import state
from khonsu.core.records import Record, Setting, key_of


def setting(key: str, value: int = 0) -> Setting:
    """Return a record."""
    return Setting(key=key, value=value)


def test_the_puts_of_a_kind_are_one_statement() -> None:
    """Of two puts of one key the later counts, and a delete in between keeps its place."""
    gone = Delete("setting", ("a",))
    merged = state._merged(
        [
            Put("setting", (setting("a", 1),)),
            Put("setting", (setting("b", 1), setting("a", 2))),
            gone,
            Put("setting", (setting("a", 3),)),
        ]
    )
    expected = [Put("setting", (setting("a", 2), setting("b", 1))), gone, Put("setting", (setting("a", 3),))]
    assert merged == expected


def test_each_record_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand small decisions in one group cost a thousand look-ups, and not half a million."""
    looked = 0

    def counted(record: Record) -> str:
        nonlocal looked
        looked += 1
        return key_of(record)

    monkeypatch.setattr(state, "key_of", counted)
    merged = state._merged([Put("setting", (setting(str(number)),)) for number in range(1_000)])
    assert len(merged) == 1
    assert looked == 1_000
