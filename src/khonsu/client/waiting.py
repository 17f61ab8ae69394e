"""Waiting: when a run of a job is done, and what the wait returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from attrs import evolve, frozen

from khonsu.core.results import JobResult
from khonsu.core.revision import Revision
from khonsu.core.states import Desired
from khonsu.env import Env
from khonsu.errors import Unavailable, Unreachable, WaitTimeout

HOLD_SECONDS = 30.0
RETRY_SECONDS = 0.5
RETRY_SECONDS_MAX = 5.0

Until = Literal["placed", "done"]
Ask = Callable[[Revision | None, float], Awaitable[JobResult]]
"""Returns the result as soon as it is newer than a revision, or after some seconds as it is."""


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
    if until == "placed" and result.status == "pending" and result.allocations:
        return not result.unplaced
    return False


async def wait_for(ask: Ask, patience: Patience, env: Env, progress: Callable[[JobResult], None]) -> JobResult:
    """Wait for a run.

    A control plane that is away is asked again until the time is out.

    Raises:
        WaitTimeout: Time ran out; has the result so far.
        Unreachable: The control plane was away when time ran out.

    """
    deadline = _end(env, patience.timeout_seconds)
    blocked_since: float | None = None
    after: Revision | None = None
    result: JobResult | None = None
    pause = RETRY_SECONDS
    while True:
        hold = min(HOLD_SECONDS, max(0.0, deadline - env.monotonic()))
        if blocked_since is not None:
            hold = min(hold, max(0.0, blocked_since + patience.placement_seconds - env.monotonic()))
        try:
            result = await ask(after, hold)
        except (Unreachable, Unavailable):
            if env.monotonic() + pause >= deadline:
                raise
            await env.sleep(env.jittered(pause))
            pause = min(2 * pause, RETRY_SECONDS_MAX)
            continue
        pause = RETRY_SECONDS
        after = result.revision
        progress(result)
        if is_over(result, patience.until):
            return result
        now = env.monotonic()
        blocked_since = None if result.status != "blocked" else now if blocked_since is None else blocked_since
        if blocked_since is not None and now >= blocked_since + patience.placement_seconds:
            return result
        if now >= deadline:
            raise WaitTimeout(f"job {result.job} is not done: {_pending(result)}", result=_open(result))


def _end(env: Env, timeout_seconds: float | None) -> float:
    return float("inf") if timeout_seconds is None else env.monotonic() + timeout_seconds


def _open(result: JobResult) -> JobResult:
    return evolve(result, status="pending") if result.status == "blocked" else result


def _pending(result: JobResult) -> str:
    """Return in words what is still missing."""
    parts = [
        f"{allocation.group}[{allocation.slot}] is {allocation.status}{' on ' + allocation.node if allocation.node else ''}"
        for allocation in result.allocations
        if allocation.desired is Desired.RUN and allocation.live
    ]
    if result.message:
        parts.insert(0, result.message)
    return "; ".join(parts[:5]) or "nothing has been placed yet"
