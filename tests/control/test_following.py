"""Which copies are followed, as a decision."""

from __future__ import annotations

from khonsu.control.following import Following
from tests.core.rules_model import make_allocation


def test_each_copy_is_followed_once_and_late_ones_from_their_start() -> None:
    """Only of the copies that were there at the beginning a part is wanted."""
    first, late = make_allocation(0), make_allocation(1)
    following = Following({"tail": 10, "task": None}, [first])
    assert following.idle
    assert following.take([first]) == [first]
    assert not following.lacks([first])
    assert following.lacks([first, late])
    assert following.take([first, late]) == [late]
    assert [following.wanted(one)["tail"] for one in (first, late)] == [10, None]


def test_it_is_idle_when_no_stream_is_open() -> None:
    """A copy counts from the moment that it is taken, before its stream is there."""
    one = make_allocation(0)
    following = Following({}, [])
    following.take([one])
    assert not following.idle
    following.closed(one)
    assert following.idle
    following.opened(one)
    assert not following.idle
