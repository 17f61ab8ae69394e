"""Drivers by name: the built-in ones by a table, others by the entry points `khonsu.drivers`."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from khonsu.abc.driver import AnyDriver, Driver
from khonsu.core.names import nearest
from khonsu.errors import NotFound, PluginError

GROUP: Final = "khonsu.drivers"
BUILT_IN: Final = {"binary": "khonsu.drivers.binary:BinaryDriver"}


def driver_names() -> tuple[str, ...]:
    """Return the names of all drivers that can be had."""
    from importlib.metadata import entry_points

    return tuple(sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))}))


def load_driver(name: str) -> AnyDriver:
    """Return a new driver of this name, made without arguments.

    Entry points are only asked for what is not built in: a look-up takes some 40 ms.

    Raises:
        NotFound: There is none; names those that there are.
        PluginError: What the entry point names cannot be loaded, or is no driver.

    """
    made = _built_in(name) if name in BUILT_IN else _plugged_in(name)
    if not isinstance(made, Driver):
        raise PluginError(f"the entry point {GROUP}:{name} is no driver, but {type(made).__name__}")
    return made


def _built_in(name: str) -> object:
    module, _, attribute = BUILT_IN[name].partition(":")
    made: object = getattr(import_module(module), attribute)()
    return made


def _plugged_in(name: str) -> object:
    from importlib.metadata import entry_points

    found = tuple(entry_points(group=GROUP, name=name))
    if not found:
        known = driver_names()
        raise NotFound("driver", name, nearest=nearest(name, known), hint=f"There are: {', '.join(known)}")
    try:
        made: object = found[0].load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise PluginError(f"the driver {name} of {found[0].value} cannot be loaded: {error}") from error
    return made
