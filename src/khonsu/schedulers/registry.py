"""Schedulers by name: those of Khonsu by a table, installed ones by the entry points `khonsu.schedulers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, cast

from khonsu.core.names import nearest
from khonsu.errors import NotFound, PluginError

if TYPE_CHECKING:
    from khonsu.abc.scheduler import Scheduler

GROUP = "khonsu.schedulers"

BUILT_IN: Mapping[str, tuple[str, str]] = {
    "binpack": ("khonsu.schedulers.fit", "BinPack"),
    "spread": ("khonsu.schedulers.fit", "SpreadOut"),
}
"""The module and class of each scheduler that comes with Khonsu; looking further costs tens of milliseconds."""


def known() -> tuple[str, ...]:
    """Return the names of all schedulers that are installed."""
    return tuple(sorted({*BUILT_IN, *_installed()}))


def resolve(name: str) -> Callable[[], Scheduler]:
    """Return what makes the scheduler of a name.

    Raises:
        NotFound: There is none; the hint lists those there are.
        PluginError: It is installed, but cannot be loaded.

    """
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name]
        return cast("Callable[[], Scheduler]", getattr(import_module(module), attribute))
    point = _installed().get(name)
    if point is None:
        names = known()
        raise NotFound("scheduler", name, nearest=nearest(name, names), hint=f"The schedulers are {', '.join(names)}")
    try:
        return cast("Callable[[], Scheduler]", point.load())
    except (ImportError, AttributeError) as error:
        raise PluginError(f"scheduler {name} cannot be loaded from {point.value}: {error}") from error


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
