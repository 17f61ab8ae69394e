"""Functions and modules stay small enough to be read at a sitting."""

from __future__ import annotations

from statistics import median

from tests.style.source import body_lines, library

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 600
MODULE_LINES_MEDIAN_MAX = 200

# What was already larger when it was found, at its size then. Entries only shrink and vanish.
LARGER_FUNCTIONS: dict[str, int] = {}
LARGER_MODULES: dict[str, int] = {}


def test_function_bodies_are_short() -> None:
    """No function body is longer than 60 lines, but for the recorded ones."""
    sizes = {
        f"{module.place}:{function.name}": body_lines(function)
        for module in library()
        for function in module.functions()
    }
    too_long = {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX}
    assert too_long == LARGER_FUNCTIONS


def test_modules_are_short() -> None:
    """No module is longer than 600 lines, but for the recorded ones."""
    too_long = {module.place: module.lines for module in library() if module.lines > MODULE_LINES_MAX}
    assert too_long == LARGER_MODULES


def test_most_modules_are_very_short() -> None:
    """Half of the modules have less than 200 lines."""
    assert median(module.lines for module in library()) < MODULE_LINES_MEDIAN_MAX
