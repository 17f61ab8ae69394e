"""What every store must do, as one check for whoever writes one. No test framework is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from khonsu.abc.store import Store
from khonsu.testing import store_checks, store_feed
from khonsu.testing.store_checks import StoreCheckFailed

__all__ = ["StoreCheckFailed", "check_store"]

MakeStore = Callable[[], Store]

TIME_SECONDS_MAX: Final = 60.0

_CHECKS: Final = (
    store_checks.check_empty,
    store_checks.check_records,
    store_checks.check_revisions,
    store_checks.check_terms,
    store_checks.check_own_writes,
    store_checks.check_runs_once,
    store_checks.check_columns,
    store_checks.check_undo,
    store_checks.check_deletes,
    store_checks.check_find,
    store_checks.check_views_end,
    store_feed.check_concurrency,
    store_feed.check_durability_of_what_is_seen,
    store_feed.check_cancellation,
)


async def check_store(make: MakeStore, /, *, reopen: Callable[[Store], Store] | None = None) -> None:
    """Check that a store keeps the promises of `khonsu.abc.Store`.

    Args:
        make: Makes a store that is empty.
        reopen: Makes a store over what another one wrote, which was left; None if nothing outlives a store.

    Raises:
        StoreCheckFailed: It does not; says which promise.

    """
    for check in _CHECKS:
        with _in_time(check):
            async with make() as store:
                await check(store)
    for check in (store_feed.check_closed, store_feed.check_errors_pass):
        with _in_time(check):
            await check(make())
    if reopen is not None:
        with _in_time(store_feed.check_reopened):
            await store_feed.check_reopened(make(), reopen)


@contextmanager
def _in_time(check: Callable[..., object]) -> Iterator[None]:
    """Fail a check that waits for ever for what a store does not do."""
    try:
        with anyio.fail_after(TIME_SECONDS_MAX):
            yield
    except TimeoutError as error:
        promise = str(check.__doc__).split("\n", 1)[0]
        raise StoreCheckFailed(f"{promise} It waits for something that does not happen") from error
