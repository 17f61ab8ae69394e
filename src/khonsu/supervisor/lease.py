"""The lease of a task that must never run twice: a deadline in a file that the agent keeps moving."""

from __future__ import annotations

from .processes import SuspendTimer, boot_id, boottime, read_file

_LOOK_SECONDS = 1.0


def read_lease(path: str) -> float:
    """Return the deadline, in seconds of `boottime`; minus infinity if there is none for this boot."""
    try:
        deadline, boot = read_file(path).decode("ascii").split()
        return float(deadline) if boot == boot_id() else float("-inf")
    except (OSError, ValueError):
        return float("-inf")


class Lease:
    """A task's view of its agent's lease.

    `lost` is set by the owner once it acts on the end: a later renewal does not undo that.
    """

    __slots__ = ("_deadline", "_timer", "kill_timeout_seconds", "lost", "path")

    def __init__(self, path: str, kill_timeout_seconds: float) -> None:
        self.path = path
        self.kill_timeout_seconds = kill_timeout_seconds
        self.lost = False
        self._timer = SuspendTimer()
        self._deadline = float("-inf")

    @property
    def descriptor(self) -> int:
        """What becomes readable when the lease should be looked at, or -1."""
        return self._timer.descriptor

    def expired(self) -> bool:
        """Tell whether the lease has run out; reads the file only when the known deadline has passed."""
        if boottime() < self._deadline:
            return False
        self._deadline = max(self._deadline, read_lease(self.path))
        if (now := boottime()) >= self._deadline:
            if self._deadline == float("-inf"):
                self._deadline = now  # it was never read: patience begins now
            return True
        self._timer.set(self._deadline)
        return False

    def wake_at(self, moment: float) -> None:
        """Make `descriptor` readable at another moment instead."""
        self._timer.set(moment)

    def kill_at(self) -> float:
        """Return when patience ends, in seconds of `boottime`."""
        return self._deadline + self.kill_timeout_seconds

    def patience_seconds(self) -> float:
        """Return how long the owner may wait; capped where a wait stands still while the machine sleeps."""
        if self.lost:
            return float("inf")
        left = max(0.0, self._deadline - boottime())
        return left if self.descriptor >= 0 else min(left, _LOOK_SECONDS)
