"""Scopes: when they were last touched, and who waits for them."""

from __future__ import annotations

import anyio
import pytest

from khonsu.control import scopes
from khonsu.control.scopes import Scopes
from khonsu.core.revision import Revision

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio: trio wakes tasks in an order of its own."""
    return "asyncio"


def test_what_is_known_of_scopes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scopes that were not touched for the longest time are forgotten, and then seem newer, never older."""
    monkeypatch.setattr(scopes, "SCOPES_MAX", 3)
    known = Scopes()
    known.begin(Revision(1, 1))
    for number, scope in enumerate(["a", "b", "c", "a", "d", "e"], start=2):
        known.touch([scope], Revision(1, number))
    assert [known.touched(scope).number for scope in ("a", "d", "e")] == [5, 6, 7]
    assert [known.touched(scope).number for scope in ("b", "c", "never")] == [4, 4, 4]


async def test_waiters_wake_in_the_order_in_which_they_came() -> None:
    """Those who wait for a scope look again one after the other, the first one first."""
    known = Scopes()
    woken: list[int] = []
    open_now = False

    async def wait(number: int) -> None:
        await known.wait_until(lambda: open_now, "job", "other", "job")
        woken.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(wait, number)
            await anyio.wait_all_tasks_blocked()
        open_now = True
        known.wake("job")
    assert woken == list(range(20))
