"""Requests of the control plane are taken once each."""

from __future__ import annotations

from khonsu.agent import inbox
from khonsu.agent.inbox import Inbox
from khonsu.core.protocol import AgentRequest


def request(key: str) -> AgentRequest:
    """Return a request."""
    return AgentRequest(id=key, operation="logs")


def test_a_request_is_served_once_and_confirmed_until_that_is_heard() -> None:
    """What comes again is confirmed again, and not served again."""
    served: list[str] = []
    box = Inbox(lambda one: served.append(one.id))
    box.take([request("a"), request("b")])
    assert list(box.untold) == ["a", "b"]
    box.take([request("a")])
    box.told(["a", "b"])
    assert list(box.untold) == []
    box.take([request("b")])
    assert served == ["a", "b"]
    assert list(box.untold) == ["b"]


def test_only_the_last_ones_are_remembered() -> None:
    """An agent that serves for years does not remember every request."""
    box = Inbox(lambda _: None)
    for number in range(3 * inbox.REMEMBERED_MAX):
        box.take([request(str(number))])
        box.told(box.untold)
    assert len(box._known) == inbox.REMEMBERED_MAX
