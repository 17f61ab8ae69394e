"""Answers to repeated requests: a write that carries an idempotency key is carried out once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import anyio
from attrs import define, field

from khonsu.control.calls import Call, Operate
from khonsu.control.state import State
from khonsu.core.operations import OPERATIONS, Role
from khonsu.core.records import IdempotencyKey
from khonsu.errors import Conflict, InvalidRequest, StoreError

KEY_LENGTH_MAX = 255
"""Of the key as its caller knows it."""

_KEY: Final = re.compile(f"[!-~]{{1,{KEY_LENGTH_MAX}}}")


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

        Keys are the operators': what agents ask for is the same when it is repeated, and their callers must not be kept
        waiting between the gate and the decision.

        Raises:
            Conflict: The key was used for another request.
            InvalidRequest: The key is too long.

        """
        key = call.idempotency_key
        if key is None or call.caller.role is not Role.OPERATOR or OPERATIONS[call.request.operation].reads:
            return await serve(call)
        if not _KEY.fullmatch(call.request.idempotency_key or ""):
            raise InvalidRequest(f"an idempotency key has at most {KEY_LENGTH_MAX} letters of ASCII, and no blanks")
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
        except anyio.get_cancelled_exc_class():
            # What was decided is on its way to the disk all the same, and a repeat must find it there.
            with anyio.CancelScope(shield=True), suppress(StoreError):
                await self._state.settled()
            raise
        finally:
            del self._flying[key]
            flight.done.set()
