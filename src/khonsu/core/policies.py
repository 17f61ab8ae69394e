"""What happens to copies in time: restarts, moves, updates, lost contact, repetition. Durations are in seconds."""

from __future__ import annotations

from typing import Final, Literal

from attrs import field, frozen

from khonsu.core.about import about
from khonsu.core.units import optional_seconds, seconds, size_bytes

DURATION_SECONDS_MAX: Final = 10 * 365 * 86_400.0
"""The longest duration of a job file: ten years."""

RESTARTS_MAX: Final = 10_000
"""Each restart within the window is remembered, and each attempt has a fencing token."""


@frozen(kw_only=True)
class Restart:
    """Restarts of a task on its node: `attempts` within a window, then the allocation fails."""

    attempts: int = field(default=3, metadata=about("How often a task is started again.", low=0, high=RESTARTS_MAX))
    within_seconds: float = field(
        default=600.0,
        converter=seconds,
        alias="within",
        metadata=about("The window in which the attempts are counted.", above=0, high=DURATION_SECONDS_MAX),
    )
    delay_seconds: float = field(
        default=2.0,
        converter=seconds,
        alias="delay",
        metadata=about("The wait before the first restart; it doubles.", low=0, high=DURATION_SECONDS_MAX),
    )
    delay_max_seconds: float = field(
        default=60.0,
        converter=seconds,
        alias="delay_max",
        metadata=about("The longest wait before a restart.", low=0, high=DURATION_SECONDS_MAX),
    )


@frozen(kw_only=True)
class Reschedule:
    """Moves of a failed copy to another node; `attempts` None is without limit."""

    attempts: int | None = field(
        default=None,
        metadata=about(
            "How often a failed copy is tried elsewhere.",
            low=0,
            high=1_000_000,
            none_text="unlimited",
        ),
    )
    delay_seconds: float = field(
        default=5.0,
        converter=seconds,
        alias="delay",
        metadata=about("The wait before the first move; it doubles.", low=0, high=DURATION_SECONDS_MAX),
    )
    delay_max_seconds: float = field(
        default=600.0,
        converter=seconds,
        alias="delay_max",
        metadata=about("The longest wait before a move.", low=0, high=DURATION_SECONDS_MAX),
    )


@frozen(kw_only=True)
class Update:
    """How copies of an earlier version are replaced."""

    max_parallel: int = field(
        default=1, metadata=about("How many copies are replaced at a time.", low=1, high=1_000_000)
    )
    healthy_for_seconds: float = field(
        default=5.0,
        converter=seconds,
        alias="healthy_for",
        metadata=about("How long a copy must run to count as healthy.", low=0, high=DURATION_SECONDS_MAX),
    )
    healthy_within_seconds: float = field(
        default=300.0,
        converter=seconds,
        alias="healthy_within",
        metadata=about("How long a new copy may take to become healthy.", above=0, high=DURATION_SECONDS_MAX),
    )
    progress_within_seconds: float = field(
        default=600.0,
        converter=seconds,
        alias="progress_within",
        metadata=about(
            "How long an update may go on without another healthy copy.", above=0, high=DURATION_SECONDS_MAX
        ),
    )
    start_first: Literal["auto"] | bool = field(
        default="auto",
        metadata=about("Whether a new copy starts before the old one stops; `auto`: where that is safe."),
    )
    auto_revert: bool = field(
        default=True, metadata=about("Whether a failed update goes back to the last version that was stable.")
    )
    canary: int = field(
        default=0, metadata=about("How many copies of the new version run beside the old ones first.", low=0, high=1000)
    )


@frozen(kw_only=True)
class Disconnect:
    """What happens to copies on a node that is silent."""

    replace_after_seconds: float = field(
        default=0.0,
        converter=seconds,
        alias="replace_after",
        metadata=about("How long a copy may be unknown before it is replaced.", low=0, high=DURATION_SECONDS_MAX),
    )
    stop_after_seconds: float | None = field(
        default=None,
        converter=optional_seconds,
        alias="stop_after",
        metadata=about(
            "How long an agent without contact keeps the copy running.",
            above=0,
            high=DURATION_SECONDS_MAX,
            none_text="none",
        ),
    )
    keep: Literal["replacement", "original"] = field(
        default="replacement", metadata=about("Who stays when the node comes back.")
    )


@frozen(kw_only=True)
class Logs:
    """How much of a task's output is kept, per stream."""

    files: int = field(default=10, metadata=about("How many files are kept per stream.", low=1, high=1000))
    file_size_bytes: int = field(
        default=10 * 2**20,
        converter=size_bytes,
        alias="file_size",
        metadata=about("How large a file becomes before the next one is begun.", low=4096, high=2**40),
    )


@frozen(kw_only=True)
class Periodic:
    """When a job runs again and again."""

    cron: str = field(metadata=about("When, as in a crontab."))
    timezone: str = field(default="UTC", metadata=about("The time zone of `cron`."))
    overlap: str = field(default="skip", metadata=about("What happens when the run before is not over."))
    catch_up: str = field(default="last", metadata=about("What happens with runs that were missed."))
