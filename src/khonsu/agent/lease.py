"""The lease of the node: until when it may run what must never run twice."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import anyio

from khonsu.drivers.supervisor import Supervisor
from khonsu.env import Env
from khonsu.errors import DriverError

_log = logging.getLogger(__name__)


class Lease:
    """Counted from when the request was sent that renewed it, on the clock that never steps.

    Tasks learn of it by a file, which is only kept up to date while some of them need it.
    """

    def __init__(self, supervisor: Supervisor, env: Env) -> None:
        """Hold none."""
        self._supervisor = supervisor
        self._env = env
        self._renewed = anyio.Event()
        self.until = -math.inf
        self.contact = env.monotonic()
        """When the request was sent that the control plane answered last; at first, when the agent started."""

    @property
    def held(self) -> bool:
        """Return whether it holds now."""
        return self._env.monotonic() < self.until

    def renew(self, sent: float, seconds: float) -> None:
        """Note an answer to a request that was sent at a time; answers may overtake each other."""
        self.contact = max(self.contact, sent)
        self.until = max(self.until, sent + seconds)
        renewed, self._renewed = self._renewed, anyio.Event()
        renewed.set()

    async def publish(self) -> None:
        """Tell the tasks how long the lease holds.

        Raises:
            DriverError: They cannot be told now.

        """
        if math.isfinite(self.until):
            await self._supervisor.set_lease(self.until)

    async def keep_published(self, needed: Callable[[], bool]) -> None:
        """Tell the tasks of each renewal, for ever, as long as some of them need it."""
        while True:
            renewed = self._renewed
            await renewed.wait()
            if needed():
                try:
                    await self.publish()
                except DriverError as error:
                    _log.warning("%s; they end with the last one that they were told of", error)

    async def wait(self) -> None:
        """Wait until the lease holds."""
        while not self.held:
            await self._renewed.wait()
