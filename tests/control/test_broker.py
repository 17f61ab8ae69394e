"""The queue of evaluations, by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from trio.testing import MockClock

from khonsu.control.broker import OLD_ENTRIES_MIN, Broker, cancelled
from khonsu.control.state import State
from khonsu.core.ids import EvaluationId
from khonsu.core.records import Evaluation, Time
from khonsu.stores.memory import MemoryStore
from khonsu.testing import VirtualEnv

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

pytestmark = pytest.mark.anyio

JOB = "default/web"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Run on a clock that jumps to the next thing that happens."""
    return ("trio", {"clock": MockClock(autojump_threshold=0)})


@pytest.fixture
async def state() -> AsyncGenerator[State, None]:
    """Return a state that nobody writes."""
    async with MemoryStore() as store:
        made = State(store, VirtualEnv())
        await made.load()
        yield made


def ask(state: State, *, job: str = JOB, created_at: float = 0.0, not_before: float = 0.0) -> Evaluation:
    """Have a job looked at, with times from now."""
    batch = state.batch()
    made = Evaluation(
        id=EvaluationId(state.new_id()),
        job=job,
        priority=50,
        trigger="test",
        created_at=Time(state.now() + created_at),
        not_before=Time(state.now() + not_before if not_before else 0.0),
    )
    batch.put(made)
    state.apply(batch)
    return made


def end(state: State, evaluation: Evaluation) -> None:
    """End an evaluation."""
    batch = state.batch()
    batch.put(cancelled(evaluation, "superseded"))
    state.apply(batch)


async def test_what_is_due_later_is_handed_out_then_and_once(state: State) -> None:
    """The sooner one comes first, and a job has one in flight."""
    broker = Broker(state)
    later, sooner = ask(state, not_before=20.0), ask(state, not_before=10.0)
    began = anyio.current_time()
    taken = await broker.take()
    assert (taken.id, round(anyio.current_time() - began)) == (sooner.id, 10)
    with anyio.move_on_after(60.0) as waiting:
        await broker.take()
    assert waiting.cancelled_caught
    end(state, taken)
    broker.give_back(taken)
    assert (await broker.take()).id == later.id


async def test_what_was_due_while_its_job_was_looked_at_comes_after_it(state: State) -> None:
    """Also under a clock that was set back, where its own time is far away."""
    broker = Broker(state)
    ask(state)
    taken = await broker.take()
    waits = ask(state, created_at=1e6, not_before=1e6 + 10.0)
    with anyio.move_on_after(30.0):
        await broker.take()
    end(state, taken)
    broker.give_back(taken)
    with anyio.fail_after(5.0):
        assert (await broker.take()).id == waits.id


async def test_what_was_superseded_takes_no_room(state: State) -> None:
    """A job may be put off again and again; only the last time counts."""
    broker = Broker(state)
    for number in range(1_000):
        end(state, ask(state, not_before=1e8 - number))
    assert broker.put_off <= 2 * OLD_ENTRIES_MIN


async def test_what_became_due_is_not_dropped_with_what_was_superseded(state: State) -> None:
    """All workers may be busy when it becomes due, and while others are put off again and again."""
    broker = Broker(state)
    due = ask(state, job="default/other", not_before=1.0)
    await state.env.sleep(2.0)
    for _ in range(OLD_ENTRIES_MIN + 8):
        end(state, ask(state, not_before=1e8))
    with anyio.fail_after(5.0):
        assert (await broker.take()).id == due.id
