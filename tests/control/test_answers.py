"""Requests that are repeated under a key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio
import pytest

from khonsu.abc.store import Commit, Transaction
from khonsu.abc.transport import Request
from khonsu.core.codec import to_json
from khonsu.core.operations import Role
from khonsu.errors import InvalidRequest
from khonsu.stores.memory import MemoryStore
from khonsu.stores.wrapper import StoreWrapper
from tests.control.cluster import Cluster, cluster, service

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class SlowStore(StoreWrapper):
    """Holds back what is written while its gate is shut."""

    gate: anyio.Event | None = None
    held = 0

    async def write(self, transaction: Callable[[Transaction], T], /) -> Commit[T]:
        """Wait for the gate."""
        if self.gate is not None:
            self.held += 1
            await self.gate.wait()
        return await super().write(transaction)


async def test_a_repeat_after_a_time_out_is_not_carried_out_again() -> None:
    """What was decided before its caller ran out of time is found by the repeat, also when the disk is slow."""
    store = SlowStore(MemoryStore())
    async with cluster(store) as home:
        request = Request(
            operation="job.submit",
            body={"job": to_json(service())},
            idempotency_key="late",
            credential=home.plane.parts.gate.local(Role.OPERATOR),
        )
        answers: list[Mapping[str, Any]] = []

        async def ask() -> None:
            answers.append((await home.plane.parts.handler.call(request)).body)

        store.gate = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(home.client.submit, service("other"))
            await turn(lambda: bool(store.held))
            async with anyio.create_task_group() as first:
                first.start_soon(ask)
                await turn(lambda: "default/web" in home.tables.jobs)
                group.start_soon(ask)
                group.start_soon(open_soon, store.gate)
                first.cancel_scope.cancel()
        assert [answer["outcome"] for answer in answers] == ["created"]


async def turn(holds: Callable[[], bool]) -> None:
    """Let others have their turn until something holds."""
    while not holds():
        await anyio.lowlevel.checkpoint()


async def open_soon(gate: anyio.Event) -> None:
    """Open a gate when all others have had their turn."""
    await anyio.wait_all_tasks_blocked()
    gate.set()


async def test_a_key_may_be_as_long_as_it_is_said(home: Cluster) -> None:
    """The longest key that the API takes is taken, and one that is longer is refused as such."""
    operator = await home.operator()
    body = {"job": to_json(service())}
    for _ in range(2):
        answer = await operator.call(Request(operation="job.submit", body=body, idempotency_key="k" * 255))
        assert answer.body["outcome"] == "created"
    for wrong in ("k" * 256, "two words", "\ud800"):
        with pytest.raises(InvalidRequest, match="255 letters of ASCII"):
            await operator.call(Request(operation="job.submit", body=body, idempotency_key=wrong))
