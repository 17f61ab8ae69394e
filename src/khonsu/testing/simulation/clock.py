"""The clocks of a host: one that can be set, and one that only goes forward; both may be fast or slow."""

from __future__ import annotations

import random
from typing import Final

import anyio

START: Final = 1_767_225_600.0
"""The wall clock of everybody at the start of a run: the first moment of 2026, UTC."""
UPTIME_SECONDS_MAX: Final = 1000.0
RESOLUTION_SECONDS: Final = 1e-6
"""By so much a sleeper is late: rounding must not wake it just before its time, again and again."""


def true_time() -> float:
    """Return the time of the world, in seconds since the run began."""
    return anyio.current_time()


class HostClock:
    """The clocks of a host. They outlive its agent, and the one that only goes forward begins anew with each boot.

    Args:
        chance: How long the host was up when the run began.
        drift: By how much its second is too short, as a share: 0.0005 is 500 ppm fast.

    """

    def __init__(self, chance: random.Random, drift: float = 0.0) -> None:
        """Begin with the run."""
        self._chance = chance
        self._booted_at = 0.0
        self._uptime = chance.random() * UPTIME_SECONDS_MAX
        self.drift = drift
        self.wall_offset = 0.0
        """By how much somebody has moved the wall clock, in seconds."""

    def boot(self) -> None:
        """Begin the clock that only goes forward anew."""
        self._booted_at, self._uptime = true_time(), self._chance.random() * 10.0

    def monotonic(self) -> float:
        """Return the clock that only goes forward."""
        return self._uptime + (true_time() - self._booted_at) * (1.0 + self.drift)

    def wall(self) -> float:
        """Return the wall clock."""
        return START + self.wall_offset + true_time() * (1.0 + self.drift)

    def true_seconds(self, seconds: float) -> float:
        """Return how long the host takes for some seconds of its own."""
        return seconds / (1.0 + self.drift)
