"""Leases: who is heard of, and what is known of who is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.ids import NodeId
from khonsu.core.leases import GRACE_SECONDS, TTL_SECONDS, LeaseBook, Silence, mass_loss, terms_for
from khonsu.core.records import Node, Time
from khonsu.core.states import NodeStatus
from tests.core.rules_model import make_node

ONE, TWO = NodeId("n1"), NodeId("n2")
LIMIT = TTL_SECONDS + GRACE_SECONDS


def ticked(book: LeaseBook, start: float, end: float, tick: float = 0.25) -> list[tuple[float, NodeId]]:
    """Tick from one time to another and return who was expired when."""
    gone: list[tuple[float, NodeId]] = []
    for number in range(1, round((end - start) / tick) + 1):
        now = start + number * tick
        gone += [(now, node) for node in book.expire(now)]
    return gone


def test_everybody_has_a_full_lease_after_a_start() -> None:
    """A control plane that comes back expires nobody before everyone had time to call."""
    book = LeaseBook(100.0, ready=[ONE], down=[TWO])
    assert ONE in book
    assert TWO not in book
    assert ticked(book, 100.0, 120.0) == [(100.0 + LIMIT, ONE)]


def test_a_renewal_counts_from_its_receipt() -> None:
    """A node is down at the end of TTL and grace after it was last heard of, and not before."""
    book = LeaseBook(0.0)
    book.renew(ONE, 3.0)
    assert ticked(book, 0.0, 20.0) == [(3.0 + LIMIT, ONE)]
    assert book.heard_at(ONE) == 3.0


def test_a_renewal_that_was_overtaken_shortens_nothing() -> None:
    """Requests may be handled in another order than they came in."""
    book = LeaseBook(0.0)
    book.renew(ONE, 5.0)
    book.renew(ONE, 4.0)
    assert book.heard_at(ONE) == 5.0


def test_time_before_a_renewal_is_not_given_back() -> None:
    """A node that calls as soon as the control plane listens again gets no more than a lease (L2)."""
    book = LeaseBook(0.0, ready=[ONE, TWO])
    book.expire(0.25)
    book.renew(ONE, 30.0)
    assert book.expire(30.0) == ()
    assert [node for _, node in ticked(book, 30.0, 30.0 + LIMIT)] == [TWO, ONE]


def test_a_node_that_is_heard_of_again_holds_a_lease_again() -> None:
    """It is silent no more."""
    book = LeaseBook(0.0, ready=[ONE])
    ticked(book, 0.0, 20.0)
    assert book.silence(20.0).heard_seconds_ago == {ONE: 20.0}
    book.renew(ONE, 20.0)
    assert ONE in book
    assert book.silence(20.0).heard_seconds_ago == {}


@given(stall=st.floats(1.0, 1e6))
def test_a_control_plane_that_was_not_running_expires_nobody_for_it(stall: float) -> None:
    """Whatever held it up (a slow disk, a suspended machine), nobody could be heard meanwhile."""
    book = LeaseBook(0.0, ready=[ONE])
    assert ticked(book, 0.0, 5.0) == []
    assert book.expire(5.0 + stall) == ()
    found = ticked(book, 5.0 + stall, 5.0 + stall + 10.0)
    assert len(found) == 1
    assert found[0][0] - 5.0 - stall >= LIMIT - 5.0 - 1.0


def test_time_that_was_given_back_does_not_make_an_exclusive_slot_free_earlier() -> None:
    """For safety only the true time of the last call counts."""
    book = LeaseBook(0.0, ready=[ONE])
    book.expire(100.0)
    book.end(ONE)
    assert book.silence(100.0).heard_seconds_ago == {ONE: 100.0}


def test_the_end_of_a_lease_is_not_overlooked_for_a_tick() -> None:
    """One is woken when the next lease ends, and otherwise at the usual pace; never in haste."""
    book = LeaseBook(0.0, ready=[ONE], tick_seconds=0.25)
    assert book.patience_seconds(0.0) == 0.25
    end = TTL_SECONDS + GRACE_SECONDS
    for now in (0.5 * tick for tick in range(1, 22)):
        book.expire(now)
    assert book.patience_seconds(10.5) == 0.25
    book.expire(10.9)
    assert book.patience_seconds(10.9) == pytest.approx(end - 10.9)
    assert book.patience_seconds(10.9999) == pytest.approx(0.01)
    assert book.expire(end) == (ONE,)
    assert book.patience_seconds(end) == 0.25


def test_goodbye_ends_a_lease() -> None:
    """The node is silent from its last call on."""
    book = LeaseBook(0.0, ready=[ONE])
    book.end(ONE)
    assert ONE not in book
    assert ticked(book, 0.0, 20.0) == []
    assert book.heard_at(TWO) is None


def test_removed_nodes_are_forgotten_when_nothing_depends_on_them() -> None:
    """Not before an exclusive copy with the longest kill time-out has surely ended."""
    book = LeaseBook(0.0, down=[ONE, TWO])
    book.forget({TWO}, 42.0)
    assert set(book.silence(42.0).heard_seconds_ago) == {ONE, TWO}
    book.forget({TWO}, 42.5)
    assert set(book.silence(42.5).heard_seconds_ago) == {TWO}


@pytest.mark.parametrize(("nodes", "ttl", "interval"), [(0, 10.0, 3.0), (3000, 10.0, 3.0), (6000, 20.0, 6.0)])
def test_many_nodes_call_less_often(nodes: int, ttl: float, interval: float) -> None:
    """Renewals stay at 1,000 a second at most, and the lease grows with the interval."""
    terms = terms_for(nodes)
    assert (terms.ttl_seconds, terms.interval_seconds) == (ttl, interval)


def test_a_lease_that_is_out_may_be_longer_than_one_granted_now() -> None:
    """When the fleet shrinks, the longest lease that was granted still counts."""
    book = LeaseBook(0.0, ready=[NodeId(f"n{number}") for number in range(6000)])
    book.renew(ONE, 0.0)
    assert book.terms.ttl_seconds == 20.0
    for number in range(6000):
        book.end(NodeId(f"n{number}"))
    assert book.renew(ONE, 1.0).ttl_seconds == TTL_SECONDS
    assert book.silence(1.0).ttl_seconds == 20.0


# Silence.


def test_an_exclusive_copy_ends_with_lease_margin_and_kill_timeout() -> None:
    """The kill time-out counts up to 30 seconds, since a helper waits no longer."""
    silence = Silence(heard_seconds_ago={ONE: 5.0})
    assert silence.exclusive_wait_seconds(ONE, 10.0, 0.0) == 10.0 + 2.0 + 10.0 - 5.0
    assert silence.exclusive_wait_seconds(ONE, 500.0, 0.0) == 10.0 + 2.0 + 30.0 - 5.0


def test_a_node_that_the_book_does_not_know_counts_from_its_record_or_the_start() -> None:
    """Whatever is later: before its start a control plane has heard of nobody."""
    silence = Silence(up_seconds=3.0)
    assert silence.exclusive_wait_seconds(ONE, 10.0, 1000.0) == 22.0 - 3.0
    assert Silence().exclusive_wait_seconds(ONE, 10.0, 5.0) == 22.0 - 5.0
    assert silence.away_seconds(ONE, 1000.0) == 3.0
    assert Silence(heard_seconds_ago={ONE: 12.0}).away_seconds(ONE, 0.0) == 2.0


def test_a_clock_that_was_set_back_keeps_nobody_waiting() -> None:
    """A node that is marked down in the future was marked before this run of the control plane began."""
    silence = Silence(up_seconds=3.0)
    assert silence.exclusive_wait_seconds(ONE, 10.0, -86_400.0) == 22.0 - 3.0
    assert silence.away_seconds(ONE, -86_400.0) == 3.0
    assert silence.away_seconds(ONE, -0.1) == -0.1


def test_the_first_term_has_nothing_to_wait_for() -> None:
    """A later one waits until every instance of the term before has ended."""
    assert Silence().term_wait_seconds(10.0) < 0
    assert Silence(term_seconds=1.0).term_wait_seconds(10.0) == 21.0


# Mass loss.


def fleet(ready: int, *down_at: float) -> list[Node]:
    """Return a fleet with nodes that went down at these times."""
    up = [make_node(number) for number in range(ready)]
    return up + [
        make_node(ready + number, status=NodeStatus.DOWN, status_at=Time(at)) for number, at in enumerate(down_at)
    ]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (fleet(2, 1.0, 2.0, 3.0), True),
        (fleet(3, 1.0, 2.0, 3.0), False),
        (fleet(0, 1.0, 2.0), False),
        (fleet(0, 1.0, 2.0, 3.0), True),
        (fleet(2, 1.0, 100.0, 200.0), False),
        (fleet(2, 1.0, 500.0, 501.0, 502.0), True),
        (fleet(9, *[1.0] * 11), False),
        (fleet(8, *[1.0] * 12), True),
    ],
)
def test_most_of_the_fleet_at_once_is_a_mass_loss(nodes: list[Node], expected: bool) -> None:
    """More than 55 % and at least three within a minute; those that were gone before do not count."""
    assert mass_loss(nodes) is expected


@given(
    times=st.lists(st.floats(0, 300), max_size=12),
    ready=st.integers(0, 8),
)
def test_mass_loss_is_what_a_plain_count_says(times: list[float], ready: int) -> None:
    """Every window is looked at."""
    expected = any(
        len(within := [at for at in times if began <= at <= began + 60.0]) >= 3
        and len(within) > 0.55 * (ready + len([at for at in times if at >= began]))
        for began in times
    )
    assert mass_loss(fleet(ready, *times)) is expected
