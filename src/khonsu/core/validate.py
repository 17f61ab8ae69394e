"""What a job must be: every mistake at once. Pure; what nodes know is checked by `khonsu.core.configs`.

`check_job` takes a job whose values have the types that they should, as `parse_job` makes it. A job that was made in
Python is checked whole, types included, by `parse_job(to_json(job))`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import islice
from typing import Any, Final

import attrs

from khonsu.core.about import NAME, NAME_EXPECTED, About, about_of
from khonsu.core.job import Job, Port
from khonsu.core.mistakes import MISTAKES_MAX, join, show
from khonsu.core.names import check_labels, check_name, check_text, nearest
from khonsu.core.reader import attributes_of, default_of, not_supported
from khonsu.core.rules import check_rules
from khonsu.core.units import format_cpu, format_duration, format_size
from khonsu.errors import InvalidJob, Problem

__all__ = ["check_job", "check_labels", "check_name", "ensure_valid"]

TEXT_MAX: Final = 131_072
"""The longest text of a job, in characters: what Linux takes for one argument."""

_FORMATS: Final[Mapping[str, Callable[[Any], str]]] = {
    "_seconds": format_duration,
    "_bytes": format_size,
    "_millis": format_cpu,
}
_NOTHING: Final = About("")


def ensure_valid(job: Job) -> Job:
    """Return a job that is right.

    Raises:
        InvalidJob: It is wrong; has every mistake.

    """
    problems = check_job(job)
    if problems:
        raise InvalidJob(problems)
    return job


def check_job(job: Job) -> tuple[Problem, ...]:
    """Return every mistake of a job that can be known without its nodes; of very many, the first ones."""
    problems: list[Problem] = []
    _check_fields(job, "", problems)
    problems.extend(islice(check_rules(job), MISTAKES_MAX))
    return tuple(problems)


@cache
def _fields(cls: type) -> tuple[tuple[str, str, About, Any], ...]:
    """Return of each field its attribute, its key, what it is about, and its default."""
    return tuple(
        (attribute.name, str(attribute.alias), about_of(attribute) or _NOTHING, default_of(attribute))
        for attribute in attributes_of(cls)
    )


def _check_fields(value: Any, path: str, problems: list[Problem]) -> None:
    """Check each field of a value on its own, by what it says that it is about."""
    cls: type = type(value)
    for name, key, facts, default in _fields(cls):
        part = getattr(value, name)
        if len(problems) >= MISTAKES_MAX:
            return
        if part is None or part is default:
            continue
        if facts.later:
            if part != default:
                problems.append(Problem(join(path, key), show(part), not_supported(key)))
            continue
        _check_part(part, name, facts, join(path, key), problems)


def _check_part(part: Any, name: str, facts: About, path: str, problems: list[Problem]) -> None:
    if isinstance(part, str):
        _check_word(part, facts, path, problems)
    elif isinstance(part, bool) or part is None:
        return
    elif isinstance(part, (int, float)):
        _check_number(part, name, facts, path, problems)
    elif isinstance(part, Mapping):
        for key, item in part.items():
            problems.extend(check_text(key, path))
            _check_part(item, name, facts, join(path, key), problems)
    elif isinstance(part, (tuple, list)):
        for index, item in enumerate(part):
            place = join(path, item.name) if isinstance(item, Port) else f"{path}[{index}]"
            _check_part(item, name, facts, place, problems)
    elif attrs.has(type(part)):
        _check_fields(part, path, problems)


def _check_word(word: str, facts: About, path: str, problems: list[Problem]) -> None:
    if facts.name:
        if not NAME.fullmatch(word):
            problems.append(Problem(path, show(word), NAME_EXPECTED))
    elif facts.choices:
        if word not in facts.choices:
            expected = f"one of {' '.join(facts.choices)}"
            problems.append(Problem(path, show(word), expected, nearest(word, facts.choices)))
    elif len(word) > TEXT_MAX:
        problems.append(Problem(path, f"a text of {len(word)} characters", f"at most {TEXT_MAX} characters"))
    else:
        problems.extend(check_text(word, path))


def _check_number(number: float, name: str, facts: About, path: str, problems: list[Problem]) -> None:
    too_low = (facts.low is not None and number < facts.low) or (facts.above is not None and number <= facts.above)
    if too_low or (facts.high is not None and number > facts.high):
        problems.append(Problem(path, shown_number(number, name), allowed_numbers(facts, name)))


def shown_number(number: float, name: str) -> str:
    """Return the value of an attribute as people write it; the end of the name tells the unit."""
    form = next((each for end, each in _FORMATS.items() if name.endswith(end)), None)
    return show(number) if form is None else form(number)


def allowed_numbers(facts: About, name: str) -> str:
    """Return in words which numbers an attribute may have."""
    high = None if facts.high is None else shown_number(facts.high, name)
    if facts.above is not None:
        least = f"more than {shown_number(facts.above, name)}"
        return least if high is None else f"{least}, at most {high}"
    least = "anything" if facts.low is None else shown_number(facts.low, name)
    return f"at least {least}" if high is None else f"{least} to {high}"
