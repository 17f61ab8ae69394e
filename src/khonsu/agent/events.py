"""What happens to an allocation on its node, and what is to be done about it."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from attrs import frozen

from khonsu.abc.driver import Handle, TaskExit
from khonsu.core.records import Time


class Ending(StrEnum):
    """Why the tasks of an allocation are to end."""

    STOP = "stopped"
    """It is not wanted any more."""
    FAIL = "fail"
    """One of its tasks failed for good."""
    LOSE = "lose"
    """The node may not keep it any longer: its lease ran out, contact was lost for too long, or it is gone."""


# Events.


@frozen(kw_only=True)
class Begin:
    """The allocation is to run. `now` is on the clock that never steps, here and below."""

    now: float


@frozen(kw_only=True)
class Prepared:
    """All is laid out for an attempt."""

    task: str
    attempt: int


@frozen(kw_only=True)
class Started:
    """An attempt runs. `at` is the wall clock."""

    task: str
    attempt: int
    handle: Handle
    at: Time
    now: float


@frozen(kw_only=True)
class Refused:
    """An attempt could not be prepared or started."""

    task: str
    attempt: int
    message: str
    retryable: bool
    at: Time
    now: float


@frozen(kw_only=True)
class Exited:
    """An attempt ended."""

    task: str
    attempt: int
    exit: TaskExit
    now: float


@frozen(kw_only=True)
class Halted:
    """A preparation was given up, as was ordered, and nothing of the attempt is left."""

    task: str
    attempt: int


@frozen(kw_only=True)
class Retried:
    """The wait after an attempt is over."""

    task: str
    attempt: int
    now: float


@frozen(kw_only=True)
class Ended:
    """The allocation is to end."""

    ending: Ending
    message: str = ""


@frozen(kw_only=True)
class Looked:
    """Time has passed: the health is looked at."""

    now: float


Event: TypeAlias = Begin | Prepared | Started | Refused | Exited | Halted | Retried | Ended | Looked


# Actions.


@frozen(kw_only=True)
class Prepare:
    """Fetch and lay out what an attempt needs; answered by `Prepared` or `Refused`."""

    task: str
    attempt: int


@frozen(kw_only=True)
class Start:
    """Start an attempt, once it is on the disk that it was prepared; answered by `Started` or `Refused`.

    From then on it is never taken for one that was not started.
    """

    task: str
    attempt: int


@frozen(kw_only=True)
class Watch:
    """Wait for the end of an attempt; answered by `Exited`."""

    task: str
    attempt: int
    handle: Handle


@frozen(kw_only=True)
class Halt:
    """Give up a preparation, and remove what may be there of the attempt; answered by `Halted`.

    An attempt that is just being started is not held up: `Started` or `Refused` tells what became of it.
    """

    task: str
    attempt: int


@frozen(kw_only=True)
class Stop:
    """Stop an attempt after a delay; its end is told by `Exited`."""

    task: str
    attempt: int
    handle: Handle
    delay_seconds: float


@frozen(kw_only=True)
class Retry:
    """Send `Retried` after a while."""

    task: str
    attempt: int
    delay_seconds: float


@frozen(kw_only=True)
class Look:
    """Send `Looked` at a time of the clock that never steps."""

    at: float


Action: TypeAlias = Prepare | Start | Watch | Halt | Stop | Retry | Look
