"""Times and spans as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

MINUTE: Final = 60
HOUR: Final = 3_600
DAY: Final = 86_400


def ago(at: float | None, now: float) -> str:
    """Return how long ago something was."""
    if at is None:
        return "-"
    return f"{span(max(0.0, now - at))} ago"


def span(seconds: float) -> str:
    """Return a length of time in its one or two largest units, to the nearest second."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole}s"
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02}s"
    if whole < DAY:
        return f"{whole // HOUR}h{whole % HOUR // MINUTE:02}m"
    return f"{whole // DAY}d{whole % DAY // HOUR:02}h"


def moment(at: float) -> str:
    """Return a time on the clock of whoever reads it, to the millisecond where it is today's."""
    local = datetime.fromtimestamp(at, UTC).astimezone()
    return local.strftime("%Y-%m-%d %H:%M:%S.") + f"{local.microsecond // 1000:03}"
