"""Output: tables and lines for people, JSON for programs. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click

from khonsu.errors import InvalidJob, KhonsuError, to_problem

GOOD = frozenset({"running", "ready", "healthy", "complete", "eligible", "successful", "placed", "ok", "yes"})
BAD = frozenset({"failed", "lost", "down", "blocked", "reverted", "unhealthy", "wrong"})
BETWEEN = frozenset(
    {
        "pending",
        "starting",
        "preparing",
        "stopping",
        "unknown",
        "draining",
        "backoff",
        "ineligible",
        "superseded",
        "warning",
    }
)
_STREAMS = ("stdout", "stderr")


def coloured(stream: IO[Any]) -> bool:
    """Return whether colour may be used on a stream: on a terminal, unless `NO_COLOR` forbids it."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Out:
    """Where a command writes what it has to say.

    Args:
        as_json: Whether a program reads it.

    """

    def __init__(self, *, as_json: bool = False) -> None:
        """Look at what the streams are."""
        self.as_json = as_json
        self.on_terminal = sys.stdout.isatty()
        self._colour = {"stdout": coloured(sys.stdout), "stderr": coloured(sys.stderr)}

    # For programs.

    def json(self, value: object) -> None:
        """Write a JSON value on a line of its own."""
        click.echo(json.dumps(value, allow_nan=False))

    # For people.

    def line(self, text: str = "") -> None:
        """Write a line of the result."""
        click.echo(text, color=self._colour["stdout"])

    def note(self, text: str) -> None:
        """Write a line beside the result; nothing where a program reads it."""
        if not self.as_json:
            click.echo(text, err=True, color=self._colour["stderr"])

    def title(self, text: str) -> None:
        """Write the heading of a part."""
        self.line()
        self.line(self.bold(text))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], *, indent: int = 0) -> None:
        """Write a table; words that are a status are coloured."""
        cells = [[text(cell) for cell in row] for row in rows]
        widths = [max([len(heading), *(len(row[index]) for row in cells)]) for index, heading in enumerate(headings)]
        edge = " " * indent
        self.line(edge + self.bold("  ".join(map(str.ljust, headings, widths)).rstrip()))
        for row in cells:
            padded = [self.status(cell, width) for cell, width in zip(row, widths, strict=True)]
            self.line((edge + "  ".join(padded)).rstrip())

    def facts(self, rows: Iterable[tuple[str, object]]) -> None:
        """Write names and values, one pair on each line; values that say nothing are left out."""
        shown = [(name, text(value)) for name, value in rows if value not in (None, "", ())]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self.line(f"{self.bold(name.ljust(width))}  {self.status(value)}")

    def bold(self, plain: str) -> str:
        """Return a text in bold, where that can be shown."""
        return click.style(plain, bold=True) if self._colour["stdout"] else plain

    def faint(self, plain: str) -> str:
        """Return a text that stands back, where that can be shown."""
        return click.style(plain, dim=True) if self._colour["stdout"] else plain

    def status(self, plain: str, width: int = 0) -> str:
        """Return a text, padded, with a colour if it is a status."""
        padded = plain.ljust(width)
        colour = "green" if plain in GOOD else "red" if plain in BAD else "yellow" if plain in BETWEEN else None
        return click.style(padded, fg=colour) if colour is not None and self._colour["stdout"] else padded

    # For both.

    def error(self, error: KhonsuError) -> None:
        """Write an error to stderr: as a problem document, or with what to do about it."""
        if self.as_json:
            click.echo(json.dumps(to_problem(error)), err=True)
            return
        red = click.style("error:", fg="red", bold=True) if self._colour["stderr"] else "error:"
        click.echo(f"{red} {error.message}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        elif isinstance(error, InvalidJob):
            click.echo("  Nothing was submitted", err=True)


def text(value: object) -> str:
    """Return a value as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    # What others wrote must not move the cursor.
    return "".join(letter if letter.isprintable() else " " for letter in str(value))
