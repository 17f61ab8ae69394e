"""The timers of a seed: how long things are waited for, and how much goes into one step, each from a sane range.

What they are set to must not matter to any promise; what two of them are together is where mistakes hide.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Final

from attrs import frozen

from khonsu.agent import agent, cleanup, journal
from khonsu.agent import sync as agent_sync
from khonsu.control import leases as control_leases
from khonsu.control import plane, planner, pruner, state, worker
from khonsu.control import sync as control_sync
from khonsu.core import leases
from khonsu.core.retention import Retention
from khonsu.stores import sqlite


@frozen
class Timer:
    """A constant of a module, and what a seed may set it to; the usual value is among them."""

    module: ModuleType
    name: str
    values: Sequence[float]


TTL_SECONDS: Final = (6.0, 10.0, 15.0)
TTL_SHARES: Final = (0.2, 0.3, 0.4)
"""How often a lease is renewed, as a share of its length."""
TIMERS: Final = (
    Timer(leases, "GRACE_SECONDS", (0.5, 1.0, 2.0)),
    Timer(control_leases, "TICK_SECONDS", (0.1, 0.25, 0.5)),
    Timer(control_sync, "HOLD_SECONDS_MAX", (1.0, 30.0)),
    Timer(planner, "RETRY_SECONDS", (1.0, 5.0)),
    Timer(worker, "STORE_RETRY_SECONDS", (0.1, 0.5, 1.0)),
    Timer(state, "REBUILD_PAUSE_SECONDS", (0.1, 0.5, 1.0)),
    Timer(state, "KEYS_RESERVED", (10, 1_000, 100_000)),
    Timer(state, "ROWS_PER_READ", (25, 250)),
    Timer(plane, "WORKERS", (1, 2, 4)),
    Timer(pruner, "INTERVAL_SECONDS", (15.0, 60.0)),
    Timer(pruner, "ROWS_PER_SLICE", (100, 1_000)),
    Timer(sqlite, "GROUP_WRITES_MAX", (1, 3, 1_000)),
    Timer(agent, "FACTS_SECONDS", (10.0, 60.0)),
    Timer(cleanup, "LOOK_SECONDS", (10.0, 60.0)),
    Timer(journal, "LAZY_SECONDS", (0.01, 0.05, 0.5)),
    Timer(agent_sync, "ANSWER_SECONDS_MAX", (4.0, 10.0)),
    Timer(agent_sync, "BACKOFF_SECONDS", (0.1, 0.25, 0.5)),
    Timer(agent_sync, "REPORTS_MAX", (2, 20, 500)),
    Timer(agent_sync, "REPORT_SECONDS_MIN", (0.01, 0.2)),
)


@contextmanager
def drawn(chance: random.Random) -> Iterator[Retention]:
    """Have the timers set by chance within the block, and yield what of the history is kept."""
    ttl = chance.choice(TTL_SECONDS)
    interval = ttl * chance.choice(TTL_SHARES)
    values = [(leases, "TTL_SECONDS", ttl), (leases, "INTERVAL_SECONDS", interval)]
    values += [(timer.module, timer.name, chance.choice(timer.values)) for timer in TIMERS]
    # Answers and jobs are kept: without them no promise can be kept.
    retention = Retention(
        allocations=chance.choice(("5s", "24h")),
        allocations_max=chance.choice((3, 1_000)),
        versions_max=chance.choice((2, 20)),
        evaluations=chance.choice(("5s", "1h")),
        events=chance.choice(("20s", "168h")),
        events_max=chance.choice((50, 100_000)),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in values]
    try:
        for module, name, value in values:
            setattr(module, name, value)
        yield retention
    finally:
        for module, name, value in before:
            setattr(module, name, value)
