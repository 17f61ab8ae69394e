"""The schedulers of a control plane: the built-in ones, and the user's, by name, and how they are asked.

What a scheduler does is a stranger's code. It runs on a thread, it is waited for so long, and one that does not come
back is asked nothing more until it does: no more than a few threads are lost to it, and nothing else is held up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio
from attrs import define

from khonsu.core.units import format_duration
from khonsu.env import Env, Worker
from khonsu.errors import KhonsuError, PluginError

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler

T = TypeVar("T")

ANSWER_SECONDS_MAX = 120.0
"""How long a scheduler is waited for."""


@define(eq=False)
class _Question:
    """What a scheduler is asked, since when by the clock that does not step, and whether it has come back."""

    since: float
    over: bool = False


class Schedulers:
    """Finds schedulers by name. The user's are given as they are and stand before built-in ones of the same name."""

    def __init__(self, own: Iterable[Scheduler], env: Env) -> None:
        """Take the user's schedulers."""
        self._env = env
        self._asked: defaultdict[str, list[_Question]] = defaultdict(list)
        self._own: dict[str, Scheduler] = {}
        for scheduler in own:
            if scheduler.name in self._own:
                raise PluginError(f"two schedulers are named {scheduler.name}")
            self._own[scheduler.name] = scheduler
        self._made: dict[str, Scheduler] = {}
        self._turns: dict[str, anyio.Lock] = {}

    def names(self) -> tuple[str, ...]:
        """Return the names of all that are known without looking at installed packages."""
        from khonsu.schedulers.registry import BUILT_IN

        return tuple(sorted({*self._own, *BUILT_IN}))

    def knows(self, name: str) -> bool:
        """Return whether a scheduler of this name can be found."""
        from khonsu.schedulers.registry import known

        return name in self._own or name in known()

    def get(self, name: str) -> Scheduler:
        """Return a scheduler.

        Raises:
            NotFound: There is none of this name; lists the known ones.

        """
        own = self._own.get(name) or self._made.get(name)
        if own is None:
            from khonsu.schedulers.registry import resolve

            own = self._made[name] = resolve(name)()
        return own

    async def ask(self, scheduler: Scheduler, thread: Worker, question: Callable[[], T]) -> T:
        """Ask a scheduler something on a thread, which is left to it if it does not come back.

        Raises:
            PluginError: It failed, took too long, or is still busy with what took too long before.

        """
        if (seconds := self._late_seconds(scheduler.name)) is not None:
            raise PluginError(_late(scheduler.name, seconds), hint="restart the control plane without it")
        one = _Question(self._env.monotonic())
        self._asked[scheduler.name].append(one)

        def answer() -> T:
            try:
                return question()
            except KhonsuError:
                raise
            except (Exception, SystemExit) as error:  # a stranger who calls `sys.exit` ends nobody else
                raise PluginError(f"scheduler {scheduler.name}: {type(error).__name__}: {error}") from error
            finally:
                one.over = True

        try:
            return await thread.run_within(ANSWER_SECONDS_MAX, answer)
        except TimeoutError as error:
            raise PluginError(_late(scheduler.name, ANSWER_SECONDS_MAX)) from error

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is to be said of schedulers that do not come back."""
        late = [(name, self._late_seconds(name)) for name in list(self._asked)]
        return tuple(_late(name, seconds) for name, seconds in late if seconds is not None)

    def _late_seconds(self, name: str) -> float | None:
        """Return for how long a scheduler has not come back, or None for one that is not late."""
        self._asked[name] = [one for one in self._asked[name] if not one.over]
        since = min((one.since for one in self._asked[name]), default=None)
        seconds = 0.0 if since is None else self._env.monotonic() - since
        return seconds if seconds >= ANSWER_SECONDS_MAX else None

    @asynccontextmanager
    async def turn(self, scheduler: Scheduler) -> AsyncGenerator[None, None]:
        """Have a scheduler that learns plan and be told of the outcome before it plans again.

        One that does not may plan for several workers at once.
        """
        if not learns(scheduler):
            yield
            return
        async with self._turns.setdefault(scheduler.name, anyio.Lock()):
            yield


def learns(scheduler: Scheduler) -> bool:
    """Return whether a scheduler wants to be told of outcomes."""
    from khonsu.abc.scheduler import Scheduler

    return type(scheduler).observe is not Scheduler.observe


def _late(name: str, seconds: float) -> str:
    return f"scheduler {name} has not come back for {format_duration(float(int(seconds)))}"
