"""Progress: how a run of a job goes, while somebody waits for it.

On a terminal a table lives at the bottom of the screen; elsewhere there is a line for each thing that changes. Both go
to stderr, and neither is there where a program reads the output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from khonsu.cli.failures import how_it_ended
from khonsu.cli.output import BAD, GOOD, Out, coloured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from khonsu.core.records import Allocation
    from khonsu.core.results import JobResult
    from khonsu.env import Env

COPIES_SHOWN: Final = 20
REFRESHES_PER_SECOND: Final = 4


class Progress(Protocol):
    """What shows how runs go."""

    def update(self, result: JobResult) -> None:
        """Show how a run stands now."""


@contextmanager
def showing(out: Out, env: Env, *, live: bool) -> Iterator[Progress]:
    """Show progress for the length of the block.

    Args:
        out: Where the command writes.
        env: For the time that has passed.
        live: Whether a table may live on the terminal; not where logs are shown as well.

    """
    if out.as_json:
        yield Silent()
    elif live and sys.stderr.isatty():
        yield from _living(env)
    else:
        yield Lines(out, env)


class Silent:
    """Shows nothing."""

    def update(self, result: JobResult) -> None:
        """Do nothing."""


class Lines:
    """Writes a line for each thing that changes."""

    def __init__(self, out: Out, env: Env) -> None:
        """Begin to count the seconds."""
        self._out = out
        self._env = env
        self._began = env.monotonic()
        self._seen: dict[str, str] = {}

    def update(self, result: JobResult) -> None:
        """Write what is new."""
        if len(result.allocations) > COPIES_SHOWN:
            self._tell(f"{result.job}, all", f"{result.job}: {summary(result.allocations)}")
        else:
            for one in result.allocations:
                self._tell(one.id, f"{result.job} {one.group}/{one.slot} on {one.node}: {standing(one)}")
        if result.status == "blocked":
            self._tell(result.job, f"{result.job}: {result.message}")
        else:
            self._seen.pop(result.job, None)

    def _tell(self, thing: str, line: str) -> None:
        if self._seen.get(thing) != line:
            self._seen[thing] = line
            self._out.note(f"{self._env.monotonic() - self._began:6.1f}s  {line}")


def _living(env: Env) -> Iterator[Progress]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, no_color=not coloured(sys.stderr))
    table = Living(env)
    with Live(
        console=console, get_renderable=table.render, refresh_per_second=REFRESHES_PER_SECOND, transient=False
    ) as live:
        yield table
        live.refresh()


class Living:
    """A table of all copies that lives on the terminal."""

    def __init__(self, env: Env) -> None:
        """Begin to count the seconds."""
        self._env = env
        self._began = env.monotonic()
        self._results: dict[str, JobResult] = {}

    def update(self, result: JobResult) -> None:
        """Take how a run stands now; it is drawn a moment later."""
        self._results = {**self._results, result.job: result}

    def render(self) -> RenderableType:
        """Draw it. Called on a thread of its own."""
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=None, show_header=False, pad_edge=False)
        seconds = self._env.monotonic() - self._began
        for result in self._results.values():
            drawn.add_row(Text(result.job, "bold"), Text(f"version {result.version}", "dim"), Text(f"{seconds:.1f}s"))
            for one in _notable(result.allocations):
                state = standing(one)
                drawn.add_row(f"  {one.group}/{one.slot}", one.node, Text(state, _style(state)))
            if len(result.allocations) > COPIES_SHOWN:
                drawn.add_row("", "", Text(summary(result.allocations), "dim"))
            if result.unplaced:
                why = f": {result.message}" if result.message else ""
                drawn.add_row("", "", Text(f"{result.unplaced} without a place{why}", "yellow"))
        return drawn


def _notable(allocations: Sequence[Allocation]) -> Sequence[Allocation]:
    """Return the copies that are shown: all, or of very many those that are not yet what they should be."""
    if len(allocations) <= COPIES_SHOWN:
        return allocations
    return [one for one in allocations if standing(one) not in GOOD][:COPIES_SHOWN]


def summary(allocations: Sequence[Allocation]) -> str:
    """Return how many copies stand how."""
    counts: dict[str, int] = {}
    for one in allocations:
        word = standing(one).partition(":")[0]
        counts[word] = counts.get(word, 0) + 1
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))


def standing(one: Allocation) -> str:
    """Return in words how a copy stands, and why: of its tasks the first that tells."""
    failed = next((task for task in one.tasks if task.failed), None)
    if failed is not None:
        return f"failed: {how_it_ended(failed)}"
    if one.health is False:
        return f"unhealthy: {one.message}" if one.message else "unhealthy"
    if one.health and one.status == "running":
        return "healthy"
    waiting = next((task for task in one.tasks if task.status == "backoff"), None)
    if waiting is not None:
        return f"starting again after {how_it_ended(waiting)}"
    if one.status in ("pending", "starting") and any(task.status == "preparing" for task in one.tasks):
        return "preparing"
    return f"{one.status}: {one.message}" if one.message and one.status in BAD else str(one.status)


def _style(state: str) -> str:
    word = state.partition(":")[0]
    return "green" if word in GOOD else "red" if word in BAD else "yellow"
