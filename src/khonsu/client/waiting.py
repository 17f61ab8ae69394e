"""Waiting: when a run of a job is done, and what the wait returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from attrs import evolve, frozen

from khonsu.core.records import Allocation
from khonsu.core.results import JobResult
from khonsu.core.revision import Revision
from khonsu.core.states import Desired
from khonsu.env import Env
from khonsu.errors import HistoryGone, KhonsuError, StoreError, Unavailable, Unreachable, WaitTimeout

HOLD_SECONDS = 30.0
RETRY_SECONDS = 0.5
RETRY_SECONDS_MAX = 5.0
SILENCE_SECONDS_MAX = 60.0
"""How long a control plane may be away before a wait gives up; long enough for one that is started anew."""
PENDING_SHOWN = 5

Until = Literal["placed", "done"]


@frozen(kw_only=True)
class Look:
    """What is asked for in one request: the result as soon as it is newer than `after`, or as it is after `hold`.

    Args:
        after: The revision that was seen; None asks for the result as it is.
        hold_seconds: How long the answer may be held.
        version: The version that is waited for, once it is known.
        run: The run that is waited for, once it is known.

    """

    after: Revision | None = None
    hold_seconds: float = 0.0
    version: int | None = None
    run: int | None = None


Ask = Callable[[Look], Awaitable[JobResult]]


@frozen(kw_only=True)
class Patience:
    """How long to wait, in seconds.

    Args:
        until: For what: all copies placed, or the run done.
        timeout_seconds: In all; None is without end.
        placement_seconds: How long the job may be unplaceable before it is returned as blocked.

    """

    until: Until = "done"
    timeout_seconds: float | None = None
    placement_seconds: float = 10.0


def is_over(result: JobResult, until: Until) -> bool:
    """Return whether there is nothing left to wait for."""
    if result.status not in ("pending", "blocked"):
        return True
    return until == "placed" and result.status == "pending" and bool(result.allocations) and not result.unplaced


class Wait:
    """One wait for a run: what was seen of it so far."""

    def __init__(self, ask: Ask, patience: Patience, env: Env, progress: Callable[[JobResult], None]) -> None:
        """Begin to wait."""
        self._ask = ask
        self._patience = patience
        self._env = env
        self._progress = progress
        timeout = patience.timeout_seconds
        self._deadline = float("inf") if timeout is None else env.monotonic() + timeout
        self._blocked_since: float | None = None
        self._result: JobResult | None = None

    async def end(self) -> JobResult:
        """Wait until the run is over, blocked for too long, or time is out.

        Raises:
            WaitTimeout: Time ran out; has the result so far.
            Unreachable: The control plane was away for a minute, or when time ran out.

        """
        while True:
            result = self._result = await self._next()
            self._progress(result)
            if is_over(result, self._patience.until):
                return result
            now = self._env.monotonic()
            if self._blocked_for(result, now) >= self._patience.placement_seconds and result.status == "blocked":
                return result
            if now >= self._deadline:
                raise WaitTimeout(f"job {result.job} is not done: {_pending(result)}", result=_open(result))

    def _blocked_for(self, result: JobResult, now: float) -> float:
        """Return how long copies have been without a place; being looked at again does not make it shorter."""
        if result.status == "blocked" and self._blocked_since is None:
            self._blocked_since = now
        elif result.status != "blocked" and not result.unplaced:
            self._blocked_since = None
        return 0.0 if self._blocked_since is None else now - self._blocked_since

    async def _next(self) -> JobResult:
        """Return the next result; a control plane that is away for a while is asked again."""
        pause = RETRY_SECONDS
        give_up = min(self._deadline, self._env.monotonic() + SILENCE_SECONDS_MAX)
        look = self._look()
        while True:
            try:
                return await self._ask(look)
            except HistoryGone:
                look = evolve(look, after=None)
            except (Unreachable, Unavailable, StoreError) as error:
                if not self._worth_a_retry(error) or self._env.monotonic() + pause >= give_up:
                    raise
                await self._env.sleep(self._env.jittered(pause))
                pause = min(2 * pause, RETRY_SECONDS_MAX)

    def _worth_a_retry(self, error: KhonsuError) -> bool:
        return error.retryable and self._result is not None

    def _look(self) -> Look:
        if self._result is None:
            return Look()
        now = self._env.monotonic()
        ends = [HOLD_SECONDS, self._deadline - now]
        if self._blocked_since is not None and self._result.status == "blocked":
            ends.append(self._blocked_since + self._patience.placement_seconds - now)
        return Look(
            after=self._result.revision,
            hold_seconds=max(0.0, min(ends)),
            version=self._result.version,
            run=self._result.run,
        )


def _open(result: JobResult) -> JobResult:
    return evolve(result, status="pending") if result.status == "blocked" else result


def _pending(result: JobResult) -> str:
    """Return in words what is still missing."""
    live = [one for one in result.allocations if one.desired is Desired.RUN and one.live]
    parts = [result.message] if result.message else []
    parts += [_standing(one) for one in live[:PENDING_SHOWN]]
    if len(live) > PENDING_SHOWN:
        parts.append(f"and {len(live) - PENDING_SHOWN} more")
    return "; ".join(parts) or "nothing has been placed yet"


def _standing(allocation: Allocation) -> str:
    return f"{allocation.group}/{allocation.slot} is {allocation.status} on {allocation.node}"
