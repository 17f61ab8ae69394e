from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from attrs import define, evolve

from khonsu.agent.book import Book, Kept
from khonsu.agent.events import Halted
from khonsu.agent.identity import NodeIdentity
from khonsu.agent.journal import decode, encode, open_journal, replay
from khonsu.agent.lease import Lease
from khonsu.agent.sync import Speaker, Sync
from khonsu.agent.workload import Workload
from khonsu.core.codec import to_json
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.job import Disconnect
from khonsu.core.protocol import PROTOCOL, NodeFacts, SyncRequest, SyncResponse
from khonsu.core.records import NodeResources
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.states import AllocationStatus, Desired, JobType
from khonsu.drivers.supervisor import Supervisor
from khonsu.env import SystemEnv
from khonsu.errors import Conflict, Unreachable, WrongAuthority
from khonsu.testing import FakeConfig
from tests.agent.conftest import Hasty
from tests.agent.samples import a_group, a_task, an_assignment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from khonsu.abc.transport import Connection, Request, Response
    from tests.agent.conftest import Home

pytestmark = pytest.mark.anyio

A = AllocationStatus
FACTS = NodeFacts(resources=NodeResources(cpu_millis=1, memory_bytes=1, disk_bytes=1), boot_id="boot", version="1")


class Clock(SystemEnv):
    """A clock that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await anyio.lowlevel.checkpoint()


class Line:
    """A connection on which the test answers; each request waits for an answer of its own."""

    def __init__(self) -> None:
        self.asked: list[SyncRequest] = []
        self.answers: list[Any] = []

    async def call(self, request: Request, /) -> Response:
        from khonsu.abc.transport import Response
        from khonsu.core.codec import from_json

        self.asked.append(from_json(SyncRequest, request.body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Response(body=to_json(answer))


@define
class Bench:
    """A `Sync` with all around it, driven by hand."""

    sync: Sync
    line: Line
    book: Book
    workload: Workload
    lease: Lease
    clock: Clock

    async def answer(self, *answers: Any) -> None:
        """Make requests that are answered in this way, one after the other."""
        self.line.answers += answers
        for _ in answers:
            await self.sync.flush()

    @property
    def statuses(self) -> dict[str, AllocationStatus]:
        """Return the allocations that there are."""
        return {state.assignment.id: state.status for state in self.workload.states}


def an_answer(number: int, *wanted: str, term: int = 1, complete: bool = False, **fields: Any) -> SyncResponse:
    """Return an answer that wants some allocations; `-key` is one that is to be stopped."""
    group = a_group()
    assignments = tuple(
        an_assignment(key.removeprefix("-"), desired=Desired.STOP if key[0] == "-" else Desired.RUN) for key in wanted
    )
    values: dict[str, Any] = {"lease_seconds": 10.0, "interval_seconds": 3.0, **fields}
    return SyncResponse(
        term=term,
        revision=Revision(term, number),
        complete=complete,
        assignments=assignments,
        groups={assignment.group: group for assignment in assignments},
        **values,
    )


def told(bench: Bench) -> list[str]:
    """Return which allocations the last request told of."""
    return [report.id for report in bench.line.asked[-1].reports]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncGenerator[Bench, None]:
    """Return a bench on which nothing was said yet."""
    clock, line = Clock(), Line()
    async with open_journal(tmp_path / "journal", SystemEnv()) as (journal, _):
        book = Book(journal, Kept())
        workload = Workload(book, clock)
        workload.start(lambda *_, **__: None, lambda state: workload.drop(state.assignment.id), same_boot=True)
        lease = Lease(Supervisor(tmp_path / "supervisor", env=clock), clock)
        identity = NodeIdentity(node=NodeId("n"), name="home", cluster="c", credential=Secret("x"))
        connection: Connection = line  # type: ignore[assignment]
        sync = Sync(
            connection,
            Speaker(identity=identity, session="s", boot_id="boot"),
            book=book,
            workload=workload,
            lease=lease,
            facts=FACTS,
            serve=lambda _: None,
            env=clock,
        )
        yield Bench(sync, line, book, workload, lease, clock)


async def test_the_first_request_tells_all_and_the_next_only_news(bench: Bench) -> None:
    """Facts and all reports go with the first request; then `seen` says from where on changes are wanted."""
    await bench.answer(an_answer(5, "a1", complete=True))
    await bench.answer(an_answer(5))
    await bench.answer(an_answer(5))
    first, second, third = bench.line.asked
    assert (first.seen, first.facts) == (None, FACTS)
    assert (second.seen, second.facts) == (Revision(1, 5), None)
    assert [report.id for report in second.reports] == ["a1"]
    assert third.reports == ()


async def test_what_an_overtaken_answer_wants_is_ignored(bench: Bench) -> None:
    """An answer that is older than one that was acted on changes nothing but the lease."""
    await bench.answer(an_answer(5, "a1", complete=True))
    await bench.answer(an_answer(9, "-a1", "a2"))
    assert bench.statuses == {"a1": A.STOPPING, "a2": A.STARTING}
    bench.clock.time += 1
    await bench.answer(an_answer(7, "a3"))
    assert bench.statuses == {"a1": A.STOPPING, "a2": A.STARTING}
    assert bench.book.seen == Revision(1, 9)
    assert bench.lease.until == bench.clock.time + 10


async def test_an_older_term_is_never_acted_on(bench: Bench) -> None:
    """A control plane of an earlier term gives neither orders nor a lease; what was told it is told again."""
    await bench.answer(an_answer(5, "a1", term=3, complete=True))
    until = bench.lease.until
    await bench.answer(an_answer(900, term=2, complete=True))
    assert bench.statuses == {"a1": A.STARTING}
    assert bench.lease.until == until
    await bench.answer(an_answer(6, term=3))
    assert told(bench) == ["a1"]


async def test_a_later_term_is_told_everything(bench: Bench) -> None:
    """A control plane that was set back hears of all that the node has, though it was told before."""
    await bench.answer(an_answer(5, "a1", complete=True), an_answer(5), an_answer(5))
    assert not told(bench)
    await bench.answer(an_answer(2, "a1", term=2, complete=True), an_answer(2, term=2))
    assert told(bench) == ["a1"]
    assert bench.book.seen == Revision(2, 2)


async def test_a_term_is_noted_before_what_it_wants(bench: Bench) -> None:
    """Wherever a power cut ends the journal, what a control plane wanted is not there without its term."""
    await bench.answer(an_answer(5, "a1", complete=True), an_answer(2, "-a1", "a2", term=2, complete=True))
    records = list(decode(encode({"khonsu-journal": 1}) + b"".join(bench.book.journal._open.lines)))
    for end in range(len(records) + 1):
        values = replay(records[:end])
        wanted = [key for key in values if key.startswith("assignment/")]
        if wanted:
            assert values["seen"] in (("2.2",) if "assignment/a2" in wanted else ("1.5", "2.2"))


async def test_what_cannot_be_begun_ends_no_agent(bench: Bench) -> None:
    """A name that leads elsewhere, or a name that two tasks have, is left alone, and all else is done."""
    groups = {"twice": a_group(a_task("one"), a_task("one")), "up": a_group(a_task("../one")), "good": a_group()}
    wanted = {"a1": "twice", "a2": "up", "../a3": "good", "": "good", "a5": "good"}
    answer = evolve(
        an_answer(5, complete=True),
        assignments=tuple(an_assignment(key, group=group) for key, group in wanted.items()),
        groups=groups,
    )
    await bench.answer(answer, an_answer(6, "a6"))
    assert bench.statuses == {"a5": A.STARTING, "a6": A.STARTING}


@pytest.mark.parametrize("field", ["interval_seconds", "lease_seconds"])
@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e300])
async def test_times_that_cannot_be_are_refused(bench: Bench, field: str, seconds: float) -> None:
    """An agent neither asks without a pause nor sleeps for ever because an answer says so."""
    changes: dict[str, Any] = {field: seconds}
    await bench.answer(an_answer(5, complete=True), an_answer(6, "a1", **changes))
    assert bench.statuses == {}
    await bench.answer(an_answer(6, "a1"))
    assert bench.statuses == {"a1": A.STARTING}


async def test_only_a_complete_list_ends_what_it_does_not_name(bench: Bench) -> None:
    """What is not in a list of changes goes on; what is not in a complete list is ended and forgotten."""
    await bench.answer(an_answer(5, "a1", "a2", complete=True), an_answer(6, "a3"))
    assert bench.statuses == {"a1": A.STARTING, "a2": A.STARTING, "a3": A.STARTING}
    await bench.answer(an_answer(7, "a1", "a3", term=2, complete=True))
    assert bench.statuses == {"a1": A.STARTING, "a2": A.STOPPING, "a3": A.STARTING}


async def test_what_is_wanted_again_while_it_ends_is_told_of(bench: Bench) -> None:
    """A control plane that was set back once more hears the end of what the one before it did not know."""
    await bench.answer(an_answer(5, "a1", complete=True), an_answer(1, term=2, complete=True))
    assert bench.statuses == {"a1": A.STOPPING}
    await bench.answer(an_answer(1, "a1", term=3, complete=True))
    task = bench.workload.states[0].group.tasks[0].name
    bench.workload.feed(AllocationId("a1"), Halted(task=task, attempt=1))
    await bench.answer(an_answer(1, term=3))
    assert [report.status for report in bench.line.asked[-1].reports] == [A.STOPPED]


async def test_what_was_here_before_is_never_begun_again(bench: Bench) -> None:
    """A control plane that was set back may ask again for what has ended; it is told that it is lost."""
    await bench.answer(an_answer(5, "-a1", complete=True), an_answer(5, forget=(AllocationId("a1"),)))
    assert bench.statuses == {}
    await bench.answer(an_answer(1, "a1", term=2, complete=True))
    assert bench.statuses == {"a1": A.LOST}


async def test_after_a_damaged_journal_nothing_is_begun_that_may_have_run(bench: Bench) -> None:
    """What is wanted at first may have been here before, and is lost; what is wanted later is begun."""
    bench.workload._forgetful = True
    await bench.answer(an_answer(5, "a1", "-a2", complete=True), an_answer(6, "a3"), an_answer(7, "a4"))
    assert bench.statuses == {"a1": A.LOST, "a2": A.LOST, "a3": A.STARTING, "a4": A.STARTING}


async def test_an_end_is_kept_until_it_is_recorded(bench: Bench) -> None:
    """An allocation that has ended is forgotten when the control plane says so, and one that lives never."""
    await bench.answer(an_answer(5, "-a1", "a2", complete=True), an_answer(5))
    assert bench.statuses == {"a1": A.STOPPED, "a2": A.STARTING}
    await bench.answer(an_answer(6, forget=(AllocationId("a1"), AllocationId("a2"), AllocationId("a3"))))
    assert bench.statuses == {"a2": A.STARTING}


async def test_the_lease_is_counted_from_the_request(bench: Bench) -> None:
    """A lease holds from when it was asked for, and answers that overtake each other never shorten it."""
    assert not bench.lease.held
    sent = bench.clock.time
    await bench.answer(an_answer(5, complete=True))
    assert bench.lease.until == sent + 10
    bench.lease.renew(sent - 5, 10)
    assert bench.lease.until == sent + 10
    bench.clock.time = sent + 10
    assert not bench.lease.held


async def test_what_did_not_arrive_is_told_again(bench: Bench) -> None:
    """After a failure reports and facts go with the next request, in the state that things have by then."""
    lost = Unreachable("server", "nothing")
    await bench.answer(lost, lost, an_answer(5, "a1", complete=True), lost)
    assert [request.facts for request in bench.line.asked] == [FACTS, FACTS, FACTS, None]
    await bench.answer(an_answer(6, "-a1"), an_answer(6))
    statuses = [[report.status for report in asked.reports] for asked in bench.line.asked[3:]]
    assert statuses == [[A.STARTING], [A.STARTING], [A.STOPPING]]


async def test_many_reports_go_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has a limit: the first reports go first, and none is lost."""
    monkeypatch.setattr("khonsu.agent.sync.REPORTS_MAX", 2)
    wanted = [f"a{number}" for number in range(5)]
    await bench.answer(an_answer(5, *wanted, complete=True))
    told_in_turn: list[list[str]] = []
    for _ in range(4):
        await bench.answer(an_answer(5))
        told_in_turn.append(told(bench))
    assert told_in_turn == [wanted[:2], wanted[2:4], wanted[4:], []]


async def test_tries_become_rarer(bench: Bench) -> None:
    """The waits between tries grow up to the interval, and an answer ends that."""
    waits: list[float] = []
    for _ in range(8):
        before = bench.clock.time
        await bench.answer(Unreachable("server", "nothing"))
        waits.append(bench.clock.time - before)
    assert waits[0] < 1.0
    assert max(waits) <= 3.0 * 1.2
    await bench.answer(an_answer(5, complete=True))
    before = bench.clock.time
    await bench.answer(Unreachable("server", "nothing"))
    assert bench.clock.time - before < 1.0


async def test_a_protocol_that_is_too_far_away(bench: Bench) -> None:
    """One version of skew is understood, two are refused with what to do."""
    await bench.answer(an_answer(5, complete=True, protocol=PROTOCOL + 1))
    with pytest.raises(Conflict, match="Upgrade"):
        await bench.answer(an_answer(6, protocol=PROTOCOL + 2))


async def test_what_will_not_pass_ends_the_start_but_not_a_run(bench: Bench) -> None:
    """A server that is not the one that was joined is told at the start; later it may be an accident."""
    foreign = WrongAuthority("server", expected="a", found="b")
    with pytest.raises(WrongAuthority):
        await bench.answer(foreign)
    await bench.answer(an_answer(5, complete=True), foreign, an_answer(6, "a1"))
    assert bench.statuses == {"a1": A.STARTING}


# With a whole agent.


async def test_without_network_tasks_run_on(home: Home) -> None:
    """While nobody answers nothing is stopped, what ends is noted, and all of it is told afterwards."""
    async with home.agent(env=Hasty()):
        home.want("stays")
        home.want("ends", FakeConfig(run_seconds=20.0), type=JobType.BATCH)
        await home.desk.until_status("stays", A.RUNNING)
        await home.desk.until_status("ends", A.RUNNING)
        home.desk.up = False
        env = Hasty()
        await env.sleep(25.0)
        assert home.desk.status("ends") is A.RUNNING
        assert home.machine.processes["stays/one/1"].ends is None
        home.desk.up = True
        await home.desk.until_status("ends", A.COMPLETE)
        assert home.desk.status("stays") is A.RUNNING


async def test_an_agent_starts_without_a_control_plane(home: Home) -> None:
    """Its tasks are looked after before anybody answers; the block is entered when somebody does."""
    async with home.agent():
        home.want("a1", FakeConfig(run_seconds=None), type=JobType.BATCH)
        await home.desk.until_status("a1", A.RUNNING)
    home.desk.up = False
    process = home.machine.processes["a1/one/1"]
    async with anyio.create_task_group() as group:

        async def return_() -> None:
            await SystemEnv().sleep(0.05)
            home.desk.up = True

        group.start_soon(return_)
        home.machine.end(process, 0.0, process.exit)
        async with home.agent():
            assert home.desk.up
            await home.desk.until_status("a1", A.COMPLETE)


async def test_a_copy_that_is_not_to_run_on_without_contact(home: Home) -> None:
    """After `stop_after` without contact the agent ends the copy by itself, and others run on."""
    async with home.agent(env=Hasty()):
        home.want("strict", disconnect=Disconnect(stop_after="30s"))
        home.want("loose")
        await home.desk.until_status("strict", A.RUNNING)
        await home.desk.until_status("loose", A.RUNNING)
        home.desk.up = False
        await home.machine.processes["strict/one/1"].moved.wait()
        home.desk.up = True
        report = await home.desk.until_status("strict", A.LOST)
        assert report.message == "there was no contact with the control plane for 30 s"
        assert home.desk.status("loose") is A.RUNNING
