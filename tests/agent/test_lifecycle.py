from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.abc.driver import TaskExit
from khonsu.agent.events import (
    Action,
    Begin,
    Ended,
    Ending,
    Event,
    Exited,
    Halt,
    Halted,
    Look,
    Looked,
    Prepare,
    Prepared,
    Refused,
    Retried,
    Retry,
    Start,
    Started,
    Stop,
    Watch,
)
from khonsu.agent.lifecycle import recover, step
from khonsu.agent.state import AllocationState, TaskRun, restart_delay
from khonsu.core.ids import ATTEMPT_MAX
from khonsu.core.job import Restart, Update
from khonsu.core.records import TaskStatus, Time
from khonsu.core.states import ALLOCATION, AllocationStatus, JobType, TaskState
from tests.agent.samples import a_state, a_task

if TYPE_CHECKING:
    from collections.abc import Iterable

A = AllocationStatus
T = TaskState
OK = TaskExit(code=0, finished_at=9.0)
BAD = TaskExit(code=3, finished_at=9.0)


class Story:
    """An allocation, told event by event; keeps what was ordered last."""

    def __init__(self, state: AllocationState) -> None:
        self.state = state
        self.ordered: tuple[Action, ...] = ()
        self.now = 100.0

    def tell(self, *events: Event) -> Story:
        for event in events:
            self.state, self.ordered = step(self.state, event)
        return self

    def begin(self) -> Story:
        return self.tell(Begin(now=self.now))

    def prepared(self, task: str = "one") -> Story:
        return self.tell(Prepared(task=task, attempt=self.attempt(task)))

    def started(self, task: str = "one") -> Story:
        at = Time(self.now)
        return self.tell(Started(task=task, attempt=self.attempt(task), handle={"pid": 42}, at=at, now=self.now))

    def running(self, *tasks: str) -> Story:
        self.begin()
        for name in tasks or ("one",):
            self.prepared(name)
        for name in tasks or ("one",):
            self.started(name)
        return self

    def exited(self, end: TaskExit, task: str = "one") -> Story:
        return self.tell(Exited(task=task, attempt=self.attempt(task), exit=end, now=self.now))

    def refused(self, task: str = "one", *, retryable: bool) -> Story:
        at = Time(self.now)
        return self.tell(
            Refused(
                task=task,
                attempt=self.attempt(task),
                message="no such file",
                retryable=retryable,
                at=at,
                now=self.now,
            )
        )

    def retried(self, task: str = "one") -> Story:
        return self.tell(Retried(task=task, attempt=self.attempt(task), now=self.now))

    def run(self, task: str = "one") -> TaskRun:
        run = self.state.run(task)
        assert run is not None
        return run

    def attempt(self, task: str) -> int:
        return self.run(task).status.attempt

    @property
    def status(self) -> AllocationStatus:
        return self.state.status

    @property
    def tasks(self) -> list[TaskState]:
        return [run.state for run in self.state.progress.tasks]


def of_type(kind: type[Action], actions: Iterable[Action]) -> list[Action]:
    """Return the actions of one kind."""
    return [action for action in actions if isinstance(action, kind)]


def test_all_are_prepared_before_any_is_started() -> None:
    """The tasks of a group are laid out together, then started together."""
    story = Story(a_state(a_task("one"), a_task("two"), type=JobType.BATCH)).begin()
    assert story.ordered == (Prepare(task="one", attempt=1), Prepare(task="two", attempt=1))
    assert story.status is A.STARTING
    assert story.prepared("one").ordered == ()
    assert story.prepared("two").ordered == (Start(task="one", attempt=1), Start(task="two", attempt=1))
    assert story.started("one").ordered == (Watch(task="one", attempt=1, handle={"pid": 42}),)
    assert story.status is A.STARTING
    assert story.started("two").status is A.RUNNING


def test_what_is_reported_of_a_running_task() -> None:
    """A report holds the attempt, the pid and the time of the start."""
    report = Story(a_state()).running().state.report()
    assert report.status is A.RUNNING
    assert report.tasks == (TaskStatus(name="one", status=T.RUNNING, attempt=1, pid=42, started_at=Time(100.0)),)


@pytest.mark.parametrize(
    ("type_", "end", "task", "allocation"),
    [
        (JobType.BATCH, OK, T.COMPLETE, A.COMPLETE),
        (JobType.SYSBATCH, OK, T.COMPLETE, A.COMPLETE),
        (JobType.BATCH, BAD, T.BACKOFF, A.RUNNING),
        (JobType.SERVICE, OK, T.BACKOFF, A.RUNNING),
        (JobType.SYSTEM, BAD, T.BACKOFF, A.RUNNING),
    ],
)
def test_an_exit_completes_or_restarts(
    type_: JobType, end: TaskExit, task: TaskState, allocation: AllocationStatus
) -> None:
    """A batch task that exits with 0 completes; any other, and any exit of a service, is restarted."""
    story = Story(a_state(type=type_)).running().exited(end)
    assert story.tasks == [task]
    assert story.status is allocation


def test_a_batch_copy_completes_when_all_its_tasks_did() -> None:
    """One complete task is not yet a complete copy."""
    story = Story(a_state(a_task("one"), a_task("two"), type=JobType.BATCH)).running("one", "two")
    assert story.exited(OK, "one").status is A.RUNNING
    assert story.exited(OK, "two").status is A.COMPLETE


def test_a_task_that_ends_before_the_other_starts_counts_as_up() -> None:
    """A copy runs once each of its tasks was started, though one is done already."""
    story = Story(a_state(a_task("one"), a_task("two"), type=JobType.BATCH)).begin()
    story.prepared("one").prepared("two").started("one").exited(OK, "one")
    assert story.status is A.STARTING
    assert story.started("two").status is A.RUNNING


def test_restarts_double_their_wait_and_come_to_an_end() -> None:
    """Each restart waits twice as long; when the policy allows no more, the copy fails."""
    story = Story(a_state(restart=Restart(attempts=3, within="10m", delay="2s", delay_max="5s"))).running()
    waits = []
    for _ in range(3):
        (retry,) = of_type(Retry, story.exited(BAD).ordered)
        assert isinstance(retry, Retry)
        waits.append(retry.delay_seconds)
        assert story.retried().ordered == (Prepare(task="one", attempt=retry.attempt + 1),)
        assert story.prepared().ordered == (Start(task="one", attempt=retry.attempt + 1),)
        story.started()
    assert waits == [2.0, 4.0, 5.0]
    assert story.exited(BAD).status is A.FAILED
    assert story.state.progress.message == "task one: it ended with exit code 3 (restarted 3 times before)"
    assert story.state.progress.health is False
    assert story.state.report().tasks[0].exit_code == 3


def test_restarts_outside_the_window_do_not_count() -> None:
    """A task that fails now and then is restarted for ever."""
    story = Story(a_state(restart=Restart(attempts=1, within="1m", delay="2s"))).running()
    for _ in range(5):
        story.now += 60.0
        (retry,) = of_type(Retry, story.exited(BAD).ordered)
        assert isinstance(retry, Retry)
        assert retry.delay_seconds == 2.0
        story.retried().prepared().started()
    assert story.exited(BAD).status is A.FAILED


def test_a_copy_has_no_more_attempts_than_fencing_tokens() -> None:
    """After years of restarts it fails, and is placed anew under a later generation."""
    story = Story(a_state(restart=Restart(attempts=3))).running()
    last = evolve(story.run().status, attempt=ATTEMPT_MAX)
    story.state = evolve(story.state, progress=evolve(story.state.progress, tasks=(evolve(story.run(), status=last),)))
    assert story.exited(BAD).status is A.FAILED


def test_a_task_that_fails_for_good_stops_the_others() -> None:
    """The others are stopped, and then the copy has failed."""
    none = Restart(attempts=0)
    story = Story(a_state(a_task("one"), a_task("two", shutdown_delay=4), restart=none)).running("one", "two")
    story.exited(TaskExit(signal=11), "one")
    assert story.status is A.STOPPING
    assert story.ordered == (Stop(task="two", attempt=1, handle={"pid": 42}, delay_seconds=4.0),)
    assert story.exited(TaskExit(signal=15), "two").status is A.FAILED
    assert story.tasks == [T.FAILED, T.STOPPED]
    assert story.state.progress.message == "task one: it was ended by signal 11"


def test_what_may_help_later_is_tried_again() -> None:
    """A preparation that failed for a passing reason is repeated, another ends the copy."""
    story = Story(a_state()).begin().refused(retryable=True)
    assert story.tasks == [T.BACKOFF]
    assert of_type(Retry, story.ordered) == [Retry(task="one", attempt=1, delay_seconds=2.0)]
    story.retried().refused(retryable=False)
    assert story.tasks == [T.FAILED]
    assert story.status is A.FAILED
    assert story.state.progress.message == "task one: no such file"


def test_a_stop_ends_each_task_by_its_state() -> None:
    """What does not run is stopped at once, a preparation is given up, a process is stopped in its own way."""
    names = ("one", "two", "three")
    story = Story(a_state(*(a_task(name) for name in names))).begin()
    story.refused("one", retryable=True).prepared("two")
    story.tell(Ended(ending=Ending.STOP, message="not wanted"))
    assert story.tasks == [T.STOPPED, T.STOPPING, T.STOPPING]
    assert story.ordered == (Halt(task="two", attempt=1), Halt(task="three", attempt=1))
    assert story.tell(Halted(task="two", attempt=1)).status is A.STOPPING
    assert story.tell(Halted(task="three", attempt=1)).status is A.STOPPED
    assert story.state.progress.message == "not wanted"


def test_a_stop_that_meets_a_start_waits_for_it() -> None:
    """An attempt that is just being started is stopped once it runs."""
    story = Story(a_state()).begin().prepared().tell(Ended(ending=Ending.STOP))
    assert story.tasks == [T.STOPPING]
    story.started()
    assert [type(action) for action in story.ordered] == [Watch, Stop]
    assert story.exited(TaskExit(signal=15)).status is A.STOPPED


def test_a_stop_that_meets_a_refused_start_is_over() -> None:
    """An attempt that could not be started needs no stop."""
    story = Story(a_state()).begin().prepared().tell(Ended(ending=Ending.STOP)).refused(retryable=True)
    assert story.status is A.STOPPED


def test_the_first_reason_to_end_counts() -> None:
    """A stop does not hide that the copy failed before."""
    none = Restart(attempts=0)
    story = Story(a_state(a_task("one"), a_task("two"), restart=none)).running("one", "two").exited(BAD, "one")
    assert story.tell(Ended(ending=Ending.STOP)).ordered == ()
    assert story.exited(OK, "two").status is A.FAILED


def test_a_stop_of_what_was_never_begun() -> None:
    """A copy that is to be stopped before it began has stopped."""
    story = Story(a_state()).tell(Ended(ending=Ending.STOP))
    assert story.status is A.STOPPED
    assert story.tasks == [T.STOPPED]


def test_a_lost_lease_ends_the_copy_for_good() -> None:
    """What the helper stopped for want of a lease is not restarted here."""
    story = Story(a_state(exclusive=True)).running().exited(TaskExit(signal=15, lease_expired=True))
    assert story.status is A.LOST
    assert story.tasks == [T.STOPPED]


def test_health_comes_after_running_for_long_enough() -> None:
    """A service is healthy once all tasks have run for `healthy_for`, and a restart begins that anew."""
    story = Story(a_state(update=Update(healthy_for="5s", healthy_within="1m"))).begin()
    assert of_type(Look, story.ordered) == [Look(at=160.0)]
    story.prepared().started()
    assert of_type(Look, story.ordered) == [Look(at=105.0)]
    assert story.tell(Looked(now=104.0)).state.progress.health is None
    story.now = 104.5
    story.exited(BAD).retried().prepared().started()
    assert of_type(Look, story.ordered) == [Look(at=109.5)]
    assert story.tell(Looked(now=105.0)).state.progress.health is None
    assert story.tell(Looked(now=109.5)).state.progress.health is True
    assert story.tell(Looked(now=1000.0)).state.progress.health is True


def test_health_that_comes_too_late_is_told_and_may_still_come() -> None:
    """A copy that is not healthy in time says so; when it recovers it says that, too."""
    story = Story(a_state(update=Update(healthy_for="5s", healthy_within="1m"))).begin()
    assert story.tell(Looked(now=160.0)).state.progress.health is False
    assert "not healthy within 60 s" in story.state.progress.message
    story.now = 200.0
    story.prepared().started().tell(Looked(now=205.0))
    assert story.state.progress.health is True
    assert story.state.progress.message == ""


def test_a_batch_copy_has_no_health() -> None:
    """Nobody waits for the health of what is to end."""
    story = Story(a_state(type=JobType.BATCH)).begin()
    assert of_type(Look, story.ordered) == []
    assert story.prepared().started().tell(Looked(now=10_000.0)).state.progress.health is None


@st.composite
def policies(draw: st.DrawFn) -> Restart:
    """Return a policy."""
    return Restart(
        attempts=draw(st.integers(0, 20)),
        within=draw(st.floats(0.1, 10_000)),
        delay=draw(st.floats(0, 100)),
        delay_max=draw(st.floats(0, 1000)),
    )


@given(policies(), st.lists(st.floats(0, 10_000), max_size=30), st.floats(0, 20_000))
def test_the_policy_is_kept(policy: Restart, times: list[float], now: float) -> None:
    """Never more restarts within the window than allowed, and never a longer wait than the longest."""
    past = tuple(sorted(at for at in times if at <= now))
    wait, counted = restart_delay(policy, past, now)
    recent = [at for at in past if now - at < policy.within_seconds]
    assert (wait is None) == (len(recent) >= policy.attempts)
    if wait is not None:
        assert 0 <= wait <= policy.delay_max_seconds
        assert counted == (*recent, now)


# After a restart of the agent.


def test_a_process_that_runs_on_is_watched_again() -> None:
    """After a restart of the agent nothing is started that runs."""
    state = Story(a_state(type=JobType.BATCH)).running().state
    assert recover(state, 200.0, same_boot=True) == (state, (Watch(task="one", attempt=1, handle={"pid": 42}),))


def test_an_attempt_that_may_have_been_started_is_asked_for_again() -> None:
    """The same attempt is started again, which gives the process that is there; never the next one."""
    state = Story(a_state(type=JobType.BATCH)).begin().prepared().state
    state, actions = recover(state, 200.0, same_boot=True)
    assert actions == (Prepare(task="one", attempt=1),)
    assert step(state, Prepared(task="one", attempt=1))[1] == (Start(task="one", attempt=1),)


def test_what_was_stopping_is_stopped_again() -> None:
    """A stop is not forgotten, nor is its delay waited for twice."""
    story = Story(a_state(a_task("one", shutdown_delay=5))).running().tell(Ended(ending=Ending.STOP))
    watch = Watch(task="one", attempt=1, handle={"pid": 42})
    stop = Stop(task="one", attempt=1, handle={"pid": 42}, delay_seconds=0.0)
    assert recover(story.state, 200.0, same_boot=True)[1] == (watch, stop)
    story = Story(a_state()).begin().tell(Ended(ending=Ending.STOP))
    assert recover(story.state, 200.0, same_boot=True)[1] == (Halt(task="one", attempt=1),)


def test_a_wait_goes_on_where_it_was() -> None:
    """The rest of a back-off is waited for."""
    story = Story(a_state(type=JobType.BATCH)).running().exited(BAD)
    assert recover(story.state, 101.5, same_boot=True)[1] == (Retry(task="one", attempt=1, delay_seconds=0.5),)
    assert recover(story.state, 900.0, same_boot=True)[1] == (Retry(task="one", attempt=1, delay_seconds=0.0),)


def test_what_was_never_tried_begins() -> None:
    """A copy that was only noted begins, whatever happened to the machine."""
    for same_boot in (True, False):
        state, actions = recover(a_state(type=JobType.BATCH), 5.0, same_boot=same_boot)
        assert state.status is A.STARTING
        assert actions == (Prepare(task="one", attempt=1),)


def test_a_new_boot_loses_what_ran() -> None:
    """After a boot of the machine whatever may have run is lost, and is never started a second time."""
    for story in (
        Story(a_state()).begin(),
        Story(a_state()).running(),
        Story(a_state()).running().exited(BAD),
        Story(a_state()).running().tell(Ended(ending=Ending.STOP)),
    ):
        state, actions = recover(story.state, 5.0, same_boot=False)
        assert state.status is A.LOST
        assert actions == ()


def test_an_end_stays_an_end() -> None:
    """What ended before the restart is only reported."""
    state = Story(a_state(type=JobType.BATCH)).running().exited(OK).state
    for same_boot in (True, False):
        assert recover(state, 5.0, same_boot=same_boot) == (state, ())


# Everything with everything.

EVENTS: tuple[Event, ...] = (
    Begin(now=200.0),
    Prepared(task="one", attempt=1),
    Started(task="one", attempt=1, handle={"pid": 7}, at=Time(200.0), now=200.0),
    Refused(task="one", attempt=1, message="no", retryable=True, at=Time(200.0), now=200.0),
    Refused(task="one", attempt=1, message="no", retryable=False, at=Time(200.0), now=200.0),
    Exited(task="one", attempt=1, exit=OK, now=200.0),
    Exited(task="one", attempt=1, exit=BAD, now=200.0),
    Exited(task="one", attempt=1, exit=TaskExit(signal=15, lease_expired=True), now=200.0),
    Halted(task="one", attempt=1),
    Retried(task="one", attempt=1, now=200.0),
    Ended(ending=Ending.STOP),
    Ended(ending=Ending.FAIL, message="why"),
    Ended(ending=Ending.LOSE),
    Looked(now=10_000.0),
    Prepared(task="one", attempt=9),
    Prepared(task="nobody", attempt=1),
)


def reachable(state: AllocationState) -> list[AllocationState]:
    """Return every state that the events lead to, by any way."""
    found = [state]
    for one in found:
        for event in EVENTS:
            after, _ = step(one, event)
            bounded = evolve(after, progress=evolve(after.progress, message=""))
            if bounded not in found:
                found.append(bounded)
    return found


@pytest.mark.parametrize("type_", list(JobType))
def test_every_event_in_every_state(type_: JobType) -> None:
    """Every event is taken in every state that can be reached: it moves forward, or is ignored; ends are final."""
    story = Story(a_state(type=type_, restart=Restart(attempts=1)))
    states = reachable(story.state)
    assert {state.status for state in states} == set(A) - {A.UNKNOWN} - ({A.COMPLETE} if type_.keeps_running else set())
    for state in states:
        for event in EVENTS:
            after, actions = step(state, event)
            if state.terminal:
                assert (after, actions) == (state, ())
            if after.status is not state.status:
                assert any(ALLOCATION.moves[move].get(state.status) is after.status for move in ALLOCATION.moves)
            assert after.terminal == all(run.state.terminal for run in after.progress.tasks)
            assert {run.state for run in after.progress.tasks} <= set(T)
            recovered, _ = recover(after, 300.0, same_boot=True)
            assert recovered.status in (after.status, A.STARTING)


class World:
    """An executor that carries out actions in any order, and checks the promises.

    `noted` is the journal. That an attempt is prepared is on the disk when it starts; what was noted later may be lost.
    """

    def __init__(self, state: AllocationState) -> None:
        self.state = state
        self.noted = [state]
        self.safe = 0
        self.open: list[Action] = []
        self.alive: dict[str, int] = {}
        self.launched: set[tuple[str, int]] = set()
        self.now = 0.0

    def tell(self, event: Event) -> None:
        before = self.state
        self.state, actions = step(before, event)
        assert not before.terminal or self.state == before
        for old, new in zip(before.progress.tasks, self.state.progress.tasks, strict=True):
            assert new.status.attempt in (old.status.attempt, old.status.attempt + 1)
        self.noted.append(self.state)
        self.open += actions

    def crash(self, lost: int, *, same_boot: bool) -> None:
        """Kill the agent, and with a boot all tasks; the next agent knows what was noted, but for the last of it."""
        kept = max(self.safe, len(self.noted) - 1 - lost)
        if not same_boot:
            self.alive.clear()
        self.state, actions = recover(self.noted[kept], self.now, same_boot=same_boot)
        self.noted, self.safe, self.open = [self.state], 0, list(actions)

    def carry_out(self, action: Action, outcome: int) -> None:
        at = Time(self.now)
        match action:
            case Prepare(task=task, attempt=attempt) if outcome % 5:
                self.tell(Prepared(task=task, attempt=attempt))
            case Start(task=task, attempt=attempt) if outcome % 5:
                self.start(task, attempt)
                self.tell(Started(task=task, attempt=attempt, handle={"pid": 1}, at=at, now=self.now))
            case Prepare(task=task, attempt=attempt) | Start(task=task, attempt=attempt):
                retryable = outcome % 2 == 0
                if (task, attempt) not in self.launched:
                    self.tell(
                        Refused(task=task, attempt=attempt, message="no", retryable=retryable, at=at, now=self.now)
                    )
                else:
                    self.open.append(action)
            case Watch(task=task, attempt=attempt):
                self.alive.pop(task, None)
                end = TaskExit(code=outcome % 3, lease_expired=outcome == 99)
                self.tell(Exited(task=task, attempt=attempt, exit=end, now=self.now))
            case Halt(task=task, attempt=attempt):
                self.halt(task, attempt)
            case Retry(task=task, attempt=attempt, delay_seconds=delay):
                self.now += delay
                self.tell(Retried(task=task, attempt=attempt, now=self.now))
            case Look(at=moment):
                self.now = max(self.now, moment)
                self.tell(Looked(now=self.now))
            case Stop():
                pass

    def start(self, task: str, attempt: int) -> None:
        """Start an attempt once it is safe that it was prepared; one that was started before is found again."""
        attempts = [run.status.attempt if (run := state.run(task)) else 0 for state in self.noted]
        self.safe = max(self.safe, attempts.index(attempt))
        if (task, attempt) in self.launched:
            return
        assert task not in self.alive, "a task runs once at a time"
        assert attempt > max((number for name, number in self.launched if name == task), default=0)
        self.launched.add((task, attempt))
        self.alive[task] = attempt

    def halt(self, task: str, attempt: int) -> None:
        """Drop what is done for an attempt, unless it is just being started, and remove it."""
        for other in list(self.open):
            if isinstance(other, Prepare) and other.task == task:
                self.open.remove(other)
        if not any(isinstance(other, Start) and other.task == task for other in self.open):
            self.alive.pop(task, None)
            self.tell(Halted(task=task, attempt=attempt))


CHOICES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 99)), max_size=80)
CRASHES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5), st.booleans()), max_size=4)


@given(st.sampled_from(JobType), st.integers(1, 3), CHOICES, CRASHES, st.sampled_from(Ending))
def test_any_course_of_events_comes_to_an_end(
    type_: JobType, count: int, choices: list[tuple[int, int]], crashes: list[tuple[int, int, bool]], ending: Ending
) -> None:
    """Whatever happens, crashes too: each attempt starts once, one at a time, and after a stop nothing runs."""
    tasks = [a_task(f"t{number}") for number in range(count)]
    world = World(a_state(*tasks, type=type_, restart=Restart(attempts=count, within="10m")))
    world.tell(Begin(now=0.0))
    planned = {when: (lost, same_boot) for when, lost, same_boot in crashes}
    for number, (which, outcome) in enumerate(choices):
        if number in planned:
            lost, same_boot = planned[number]
            world.crash(lost, same_boot=same_boot)
        if not world.open:
            break
        world.carry_out(world.open.pop(which % len(world.open)), outcome)
    world.tell(Ended(ending=ending))
    while world.open:
        world.carry_out(world.open.pop(0), 1)
    assert world.state.terminal
    assert world.alive == {}
