"""What the control plane wants of the agent itself: taken once each, however often it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from khonsu.core.protocol import AgentRequest

REMEMBERED_MAX = 1024


class Inbox:
    """Takes requests that come with answers, and knows which of them the control plane need not tell again."""

    def __init__(self, serve: Callable[[AgentRequest], None]) -> None:
        """Hand each request on, once."""
        self._serve = serve
        self._known: dict[str, None] = {}
        self._untold: dict[str, None] = {}

    @property
    def untold(self) -> tuple[str, ...]:
        """Return the ids of what was taken, and of which the control plane may not know that it was."""
        return tuple(self._untold)

    def take(self, requests: Iterable[AgentRequest]) -> None:
        """Take what came with an answer; an answer that was overtaken may bring again what is long done."""
        for request in requests:
            self._untold[request.id] = None
            if request.id in self._known:
                continue
            self._known[request.id] = None
            if len(self._known) > REMEMBERED_MAX:
                del self._known[next(iter(self._known))]
            self._serve(request)

    def told(self, keys: Iterable[str]) -> None:
        """Note that the control plane has answered a request that named these."""
        for key in keys:
            self._untold.pop(key, None)
