"""Decisions on their way to the disk."""

from __future__ import annotations

import anyio
from attrs import define, field

from khonsu.abc.store import Change
from khonsu.control.placed import Placed
from khonsu.core.revision import Revision
from khonsu.errors import KhonsuError


@define(eq=False)
class Group:
    """Decisions that go to the disk together, as one revision."""

    revision: Revision
    changes: list[Change | Placed] = field(factory=list)
    scopes: dict[str, None] = field(factory=dict)
    done: anyio.Event = field(factory=anyio.Event)
    error: KhonsuError | None = None

    async def durable(self) -> Revision:
        """Wait until the group is on the disk, and return its revision.

        Raises:
            StoreError: It was not written, and is undone.

        """
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.revision

    def end(self, error: KhonsuError | None = None) -> None:
        """Tell those who wait how it went."""
        self.error = error
        self.done.set()
