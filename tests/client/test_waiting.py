"""Waiting, on a clock of its own and with results from a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from attrs import evolve

from khonsu.client.waiting import SILENCE_SECONDS_MAX, Look, Patience, Wait
from khonsu.core.results import JobResult
from khonsu.core.revision import Revision
from khonsu.core.states import JobType
from khonsu.env import SystemEnv
from khonsu.errors import HistoryGone, KhonsuError, StoreFull, Unavailable, Unreachable, WaitTimeout, WrongAuthority

pytestmark = pytest.mark.anyio

PENDING = JobResult(
    namespace="default",
    job="web",
    version=3,
    run=1,
    type=JobType.SERVICE,
    status="pending",
    unplaced=1,
    revision=Revision(1, 1),
)
BLOCKED = evolve(PENDING, status="blocked", message="1 of 1 copies have no place")
HEALTHY = evolve(PENDING, status="healthy", unplaced=0)
AWAY = Unreachable("https://khonsu.example", "connection refused")


class Clock(SystemEnv):
    """A clock that only sleeping and holding move."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Server:
    """Answers with what a list says; a watch of what does not change is held to its end."""

    def __init__(self, clock: Clock, answers: Iterable[JobResult | KhonsuError]) -> None:
        self.looks: list[Look] = []
        self._clock = clock
        self._answers = iter(answers)
        self._last: JobResult | None = None
        self._number = 0

    async def ask(self, look: Look) -> JobResult:
        self.looks.append(look)
        answer = next(self._answers, self._last)
        assert answer is not None
        if isinstance(answer, KhonsuError):
            raise answer
        if answer is self._last:
            self._clock.seconds += look.hold_seconds
        self._last = answer
        self._number += 1
        return evolve(answer, revision=Revision(1, self._number))


async def wait(
    *answers: JobResult | KhonsuError, progress: Callable[[JobResult], None] = lambda _: None, **patience: Any
) -> tuple[JobResult, Server, Clock]:
    """Wait for a run of which a server says something in turn."""
    clock = Clock()
    server = Server(clock, answers)
    return await Wait(server.ask, Patience(**patience), clock, progress).end(), server, clock


async def test_each_look_asks_for_what_is_newer_of_the_same_run() -> None:
    """After the first answer, later ones are for its version and run, and for what came after it."""
    seen: list[str] = []
    result, server, _ = await wait(
        PENDING, evolve(PENDING, unplaced=0), HEALTHY, progress=lambda r: seen.append(r.status)
    )
    assert result.status == "healthy"
    assert seen == ["pending", "pending", "healthy"]
    assert [(look.after, look.version, look.run) for look in server.looks] == [
        (None, None, None),
        (Revision(1, 1), 3, 1),
        (Revision(1, 2), 3, 1),
    ]


async def test_a_blocked_job_is_returned_after_the_placement_timeout() -> None:
    """What has no place is returned, not raised, when it had none for so long."""
    result, _, clock = await wait(BLOCKED, placement_seconds=7.0, timeout_seconds=60.0)
    assert (result.status, clock.seconds) == ("blocked", 7.0)


async def test_being_looked_at_again_does_not_begin_the_time_anew() -> None:
    """A blocked job that is evaluated again is pending for a moment, and still without a place."""
    result, _, clock = await wait(BLOCKED, PENDING, BLOCKED, PENDING, BLOCKED, placement_seconds=7.0)
    assert (result.status, clock.seconds) == ("blocked", 7.0)


async def test_a_job_that_finds_a_place_in_time_is_waited_for() -> None:
    """A place that is found ends the placement time-out."""
    placed = evolve(PENDING, unplaced=0)
    result, _, _ = await wait(BLOCKED, placed, HEALTHY, placement_seconds=7.0)
    assert result.status == "healthy"


async def test_time_that_runs_out_is_raised_with_the_result() -> None:
    """`WaitTimeout` has the result so far, which is pending."""
    with pytest.raises(WaitTimeout) as caught:
        await wait(BLOCKED, placement_seconds=60.0, timeout_seconds=5.0)
    assert isinstance(caught.value.result, JobResult)
    assert caught.value.result.status == "pending"
    assert "no place" in str(caught.value)


async def test_without_patience_there_is_one_look() -> None:
    """A time-out of 0 asks once."""
    with pytest.raises(WaitTimeout):
        await wait(PENDING, timeout_seconds=0.0)


async def test_a_control_plane_that_is_away_for_a_while_is_asked_again() -> None:
    """A restart of the control plane does not end a wait."""
    result, _, clock = await wait(PENDING, AWAY, Unavailable("it starts"), StoreFull("no room"), HEALTHY)
    assert result.status == "healthy"
    assert 0 < clock.seconds < SILENCE_SECONDS_MAX


async def test_a_control_plane_that_stays_away_ends_the_wait() -> None:
    """After a minute without an answer, or when time is out, that is raised."""
    with pytest.raises(Unreachable):
        await wait(PENDING, *[AWAY] * 1000)
    with pytest.raises(Unreachable):
        await wait(PENDING, *[AWAY] * 1000, timeout_seconds=2.0)


@pytest.mark.parametrize("error", [AWAY, WrongAuthority("https://khonsu.example", expected="a", found="b")], ids=str)
async def test_what_is_wrong_from_the_start_is_raised_at_once(error: KhonsuError) -> None:
    """An address that never answered, or that is somebody else's, is not asked again."""
    with pytest.raises(type(error)):
        await wait(error, HEALTHY)


async def test_another_authority_is_never_asked_again() -> None:
    """A server that turns into another one in the middle of a wait ends it."""
    with pytest.raises(WrongAuthority):
        await wait(PENDING, WrongAuthority("https://khonsu.example", expected="a", found="b"), HEALTHY)


async def test_a_history_that_is_gone_is_read_anew() -> None:
    """A revision that the control plane does not know any more is forgotten."""
    result, server, _ = await wait(PENDING, HistoryGone("pruned"), HEALTHY)
    assert result.status == "healthy"
    assert [look.after for look in server.looks] == [None, Revision(1, 1), None]
