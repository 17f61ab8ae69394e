"""Answers to repeated requests: a write that carries an idempotency key is carried out once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
from attrs import define, field

from khonsu.control.calls import Call, Operate
from khonsu.control.state import State
from khonsu.core.operations import OPERATIONS
from khonsu.core.records import IdempotencyKey
from khonsu.errors import Conflict

KEY_LENGTH_MAX = 128


@define(eq=False)
class _Flight:
    """A request that is being carried out."""

    done: anyio.Event = field(factory=anyio.Event)


class Answers:
    """Carries a request out, or gives the answer that an earlier one with the same key got."""

    def __init__(self, state: State) -> None:
        """Remember answers in the store, for as long as the retention policy keeps them."""
        self._state = state
        self._flying: dict[str, _Flight] = {}

    async def once(self, call: Call, serve: Operate) -> Mapping[str, Any]:
        """Serve a call, once for each key.

        Raises:
            Conflict: The key was used for another request.

        """
        key = call.idempotency_key
        if key is None or OPERATIONS[call.request.operation].method == "GET":
            return await serve(call)
        if len(key) > KEY_LENGTH_MAX:
            raise Conflict(f"an idempotency key has at most {KEY_LENGTH_MAX} letters")
        while (flight := self._flying.get(key)) is not None:
            await flight.done.wait()
        flight = self._flying[key] = _Flight()
        try:
            known = await self._state.read(lambda view: view.get("idempotency_key", key))
            if not isinstance(known, IdempotencyKey):
                return await serve(call)
            if known.digest != call.digest:
                raise Conflict(
                    "this idempotency key was used for another request", hint="use a new key for each request"
                )
            return known.answer
        finally:
            del self._flying[key]
            flight.done.set()
