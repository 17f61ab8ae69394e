"""What the operators of constraints mean: a condition on the text of one attribute of a node, or on its absence.

| operator | holds when |
|---|---|
| `=` | the texts are the same |
| `!=` | they are not, or the node has no such attribute |
| `<` `<=` `>` `>=` | both are numbers, else both are versions, else both are text, and compare so |
| `in` | the text is one of a list that is separated by commas |
| `not_in` | it is none of them, or the node has no such attribute |
| `regex` | the pattern is found somewhere in the text |
| `version` | the text is a version within every bound, as in `>= 1.2, < 2` |
| `is_set`, `is_not_set` | the node has the attribute, or has it not |
| `distinct` | the node has the attribute; that no two copies share its value is a matter of placement |

A version is numbers with dots, after a `v` or not. Missing numbers are zeros, and what follows counts only where it
marks something before the release: `1.2-rc1` < `1.2`, but `6.1.0-18-amd64` = `6.1`.
"""

from __future__ import annotations

import math
import operator as operators
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

Predicate: TypeAlias = Callable[[str | None], bool]

REGEX_TEXT_MAX = 128
"""Longer texts match no pattern."""
REGEX_STEPS_MAX = 5_000_000
"""A pattern that may take more steps on the longest text is refused."""

Version: TypeAlias = tuple[tuple[int, ...], tuple[int, int]]

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operators.eq,
    "!=": operators.ne,
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}
_VERSION = re.compile(r"v?(\d{1,18}(?:\.\d{1,18})*)(.*)", re.ASCII | re.DOTALL)
_BEFORE_RELEASE = re.compile(r"[-.~_]?(dev|alpha|a|beta|b|pre|rc|c)[-.]?(\d{0,18})(?![A-Za-z])", re.ASCII)
_BOUND = re.compile(r"(<=|>=|!=|<|>|=)?\s*(\S+)")
_BOUND_VERSION = re.compile(rf"v?\d+(\.\d+)*({_BEFORE_RELEASE.pattern})?([-+~_].*)?", re.ASCII)
_STAGES = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "pre": 3, "rc": 3, "c": 3}
_RELEASED = (9, 0)


def matches(operator: str, wanted: str, present: str | None) -> bool:
    """Return whether a condition holds for the text of an attribute, None where the node has none.

    Raises:
        ValueError: There is no such operator, or it cannot take this value; `problem` tells so before.

    """
    return predicate(operator, wanted)(present)


def problem(operator: str, wanted: str) -> str | None:
    """Return why an operator cannot take a value, or None if it can."""
    try:
        predicate(operator, wanted)
    except ValueError as error:
        return str(error)
    return None


@lru_cache(maxsize=4096)
def predicate(operator: str, wanted: str) -> Predicate:
    """Return a condition as a function of the attribute's text.

    Raises:
        ValueError: There is no such operator, or it cannot take this value.

    """
    if operator in ("=", "!="):
        same = operator == "="
        return lambda present: (present == wanted) is same
    if operator in _COMPARISONS:
        holds = _COMPARISONS[operator]
        return lambda present: present is not None and _compares(holds, present, wanted)
    if operator in ("in", "not_in"):
        values = frozenset(part.strip() for part in wanted.split(","))
        inside = operator == "in"
        return lambda present: (present in values) is inside
    if operator == "regex":
        pattern = compile_regex(wanted)
        return lambda present: present is not None and len(present) <= REGEX_TEXT_MAX and bool(pattern.search(present))
    if operator == "version":
        bounds = _bounds(wanted)
        return lambda present: _within(bounds, present)
    if operator in ("is_set", "distinct"):
        return lambda present: present is not None
    if operator == "is_not_set":
        return lambda present: present is None
    raise ValueError(f"{operator!r} is not an operator")


def parse_version(text: str) -> Version | None:
    """Return a version in a form that compares, or None if the text is none."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    before = _BEFORE_RELEASE.match(match[2])
    stage = (_STAGES[before[1]], int(before[2] or 0)) if before else _RELEASED
    return tuple(numbers), stage


def _compares(holds: Callable[[Any, Any], bool], present: str, wanted: str) -> bool:
    numbers = _number(present), _number(wanted)
    if numbers[0] is not None and numbers[1] is not None:
        return holds(*numbers)
    versions = parse_version(present), parse_version(wanted)
    # Without a dot it may as well be a date or a name that begins with a digit.
    if versions[0] is not None and versions[1] is not None and ("." in present or "." in wanted):
        return holds(*versions)
    return holds(present, wanted)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bounds(wanted: str) -> tuple[tuple[Callable[[Any, Any], bool], Version], ...]:
    bounds = []
    for part in wanted.split(","):
        match = _BOUND.fullmatch(part.strip())
        version = parse_version(match[2]) if match and _BOUND_VERSION.fullmatch(match[2]) else None
        if match is None or version is None:
            raise ValueError(f'{part.strip()!r} is not a bound on a version, such as ">= 1.2"')
        bounds.append((_COMPARISONS[match[1] or "="], version))
    return tuple(bounds)


def _within(bounds: tuple[tuple[Callable[[Any, Any], bool], Version], ...], present: str | None) -> bool:
    version = None if present is None else parse_version(present)
    return version is not None and all(holds(version, bound) for holds, bound in bounds)


# ------------------------------------------------------------------------------------------------ regular expressions

_REPEAT = re.compile(r"([*+?]|\{\d*,\d*\}|\{\d+\})[?+]?")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP_OPEN = re.compile(r"\((?:\?:)?(?!\?)")
_RESERVED_IN_CLASS = ("[", "--", "&&", "~~", "||")


def compile_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that is certain to end soon on any text that it is tried on.

    A backtracking matcher may take a time exponential in the text where a repeated thing repeats by itself, so groups
    are not repeated, and the ways to cut a text at the other repeats are counted.

    Raises:
        ValueError: It is no pattern, may take too long, or uses what is not allowed here.

    """
    repeats, choices = _count_ways(pattern)
    ways = math.comb(REGEX_TEXT_MAX + repeats, repeats) << choices
    if ways > REGEX_STEPS_MAX:
        raise ValueError(f"the pattern {pattern!r} may take too long; begin it with ^, or repeat less")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a pattern: {error}") from None


def _count_ways(pattern: str) -> tuple[int, int]:
    """Return how many repeats of any number and how many choices between two a pattern has."""
    body = pattern.removeprefix("(?i)")
    repeats = 0 if body.startswith("^") and "|" not in body else 1
    choices = position = 0
    while position < len(body):
        letter = body[position]
        if match := _REPEAT.match(body, position):
            many = match[1] not in ("?", "{0,1}") and "," in match[1] + ",," * (match[1] in "*+")
            if body[position - 1 : position] == ")" and body[position - 2 : position - 1] != "\\" and match[1] != "?":
                raise ValueError(f"the pattern {pattern!r} repeats a group, which may take too long")
            repeats, choices = repeats + many, choices + (match[1] in ("?", "{0,1}"))
            position = match.end()
        elif letter == "\\":
            if body[position + 1 : position + 2].isdigit():
                raise ValueError(f"the pattern {pattern!r} refers back to a group, which may take too long")
            position += 2
        elif letter == "[":
            position = _end_of_class(pattern, body, position)
        elif letter == "(" and not _GROUP_OPEN.match(body, position):
            raise ValueError(f"the pattern {pattern!r} has a (?...) that is not allowed; (?: and a leading (?i) are")
        else:
            choices += letter == "|"
            position += 3 if body.startswith("(?:", position) else 1
    return repeats, choices


def _end_of_class(pattern: str, body: str, start: int) -> int:
    match = _CLASS.match(body, start)
    if match is None:
        raise ValueError(f"{pattern!r} is not a pattern: a [ is not closed")
    if any(mark in match[0][1:] for mark in _RESERVED_IN_CLASS):
        raise ValueError(f"the pattern {pattern!r} has a [...] with [, --, &&, ~~ or || in it; write a \\ before them")
    return match.end()
