"""Words of the command line that stand for more: `rack=a`, `90s`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from khonsu.core.units import seconds


class Duration(click.ParamType["str | float"]):
    """A duration such as `90s` or `1m30s`; kept as it was written."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        """Return it if it is one."""
        try:
            plain: str | float = float(value)
        except ValueError:
            plain = value
        try:
            seconds(plain)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return plain


DURATION = Duration()


def pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """Return words of the form `KEY=VALUE` as a mapping.

    Raises:
        click.UsageError: One has no `=`, or a key stands twice.

    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{option} {word!r} is not of the form KEY=VALUE")
        if key in found:
            raise click.UsageError(f"{option} {key} stands twice")
        found[key] = value
    return found
