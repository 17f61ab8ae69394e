"""What can be said of a job only with the nodes at hand: drivers, their configs, the scheduler.

A driver's config is checked against the JSON Schema that the nodes report. The schemas come from other machines:
whatever they hold, checking ends and does not fail, and keywords that are not known here allow everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from khonsu.core.interpolation import placeholders
from khonsu.core.job import JSON, Job
from khonsu.core.mistakes import join, show
from khonsu.core.names import nearest
from khonsu.core.records import Node
from khonsu.errors import Problem

_TYPES: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "string": ("text", (str,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "boolean": ("true or false", (bool,)),
    "array": ("a list", (list, tuple)),
    "object": ("a table", (Mapping,)),
    "null": ("null", (type(None),)),
}
_DEPTH_MAX: Final = 64


def schemas_of(nodes: Iterable[Node]) -> dict[str, Mapping[str, JSON]]:
    """Return the schema of each driver that some node has; where nodes differ, any of their schemas will do."""
    found: dict[str, list[Mapping[str, JSON]]] = {}
    for node in nodes:
        for driver in node.drivers:
            schemas = found.setdefault(driver.name, [])
            if driver.config_schema not in schemas:
                schemas.append(driver.config_schema)
    return {name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas} for name, schemas in found.items()}


def check_configs(job: Job, schemas: Mapping[str, Mapping[str, JSON]]) -> tuple[Problem, ...]:
    """Return every mistake in the tasks' drivers and configs.

    Args:
        job: A job that `check_job` finds right.
        schemas: The schema of each driver's config by the driver's name; with none, nothing is known and nothing wrong.

    """
    if not schemas:
        return ()
    problems: list[Problem] = []
    for index, group in enumerate(job.groups):
        for number, task in enumerate(group.tasks):
            path = f"groups[{index}].tasks[{number}]"
            if task.driver in schemas:
                problems.extend(check_value(task.config, schemas[task.driver], f"{path}.config"))
            else:
                problems.append(_unknown(task.driver, schemas, f"{path}.driver", "a driver that a node has"))
    return tuple(problems)


def check_scheduler(job: Job, known: Iterable[str]) -> tuple[Problem, ...]:
    """Return what is wrong with the name of a job's scheduler."""
    names = set(known)
    return (
        () if job.scheduler in names else (_unknown(job.scheduler, names, "scheduler", "a scheduler of this cluster"),)
    )


def _unknown(name: str, known: Iterable[str], path: str, what: str) -> Problem:
    names = sorted(known)
    return Problem(path, show(name), f"{what}: {', '.join(names)}", nearest(name, names))


def check_value(value: JSON, schema: JSON, path: str, depth: int = _DEPTH_MAX) -> Iterator[Problem]:
    """Yield every mistake in a JSON value by a JSON Schema.

    Known are `type`, `properties`, `required`, `additionalProperties`, `items`, `enum`, `const`, `minimum`, `maximum`
    and `anyOf`. A text with `${...}` in it may be any text.
    """
    if schema is False:
        yield Problem(path, show(value), "nothing")
    if not isinstance(schema, Mapping) or depth == 0:
        return
    if not _has_type(value, schema.get("type")):
        yield Problem(path, show(value), _expected_type(schema["type"]))
        return
    yield from _choices(value, schema, path)
    for keyword, holds, words in _LIMITS:
        limit = schema.get(keyword)
        if _is_number(limit) and _is_number(value) and not holds(value, limit):
            yield Problem(path, show(value), f"{words} {show(limit)}")
    yield from _any_of(value, schema.get("anyOf"), path, depth)
    if isinstance(value, Mapping):
        yield from _table(value, schema, path, depth)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from check_value(item, schema.get("items"), f"{path}[{index}]", depth - 1)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_LIMITS: Final[tuple[tuple[str, Callable[[Any, Any], bool], str], ...]] = (
    ("minimum", lambda value, limit: value >= limit, "at least"),
    ("maximum", lambda value, limit: value <= limit, "at most"),
)


def _names(types: JSON) -> list[str]:
    """Return the known types that a schema allows, none if it allows all."""
    listed = types if isinstance(types, (list, tuple)) else [types]
    return [name for name in listed if isinstance(name, str) and name in _TYPES]


def _has_type(value: object, types: JSON) -> bool:
    names = _names(types)
    if isinstance(value, bool):
        return not names or "boolean" in names
    return not names or any(isinstance(value, _TYPES[name][1]) for name in names)


def _expected_type(types: JSON) -> str:
    return " or ".join(_TYPES[name][0] for name in _names(types))


def _choices(value: JSON, schema: Mapping[str, JSON], path: str) -> Iterator[Problem]:
    allowed = [schema["const"]] if "const" in schema else schema.get("enum")
    # Equal is not enough: True is 1.
    if isinstance(allowed, list) and not any(each == value and type(each) is type(value) for each in allowed):
        if isinstance(value, str) and any(True for _ in placeholders(value)):
            return
        names = [each for each in allowed if isinstance(each, str)]
        near = nearest(value, names) if isinstance(value, str) else None
        yield Problem(path, show(value), f"one of {', '.join(show(each) for each in allowed)}", near)


def _any_of(value: JSON, schemas: JSON, path: str, depth: int) -> Iterator[Problem]:
    """Yield what is wrong by the schema that the value comes nearest to, unless it is right by one of them."""
    if isinstance(schemas, list) and schemas:
        yield from min((list(check_value(value, each, path, depth - 1)) for each in schemas), key=len)


def _table(value: Mapping[str, JSON], schema: Mapping[str, JSON], path: str, depth: int) -> Iterator[Problem]:
    properties = schema.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    others = schema.get("additionalProperties", True)
    for key, item in value.items():
        place = join(path, str(key))
        if key in known:
            yield from check_value(item, known[key], place, depth - 1)
        elif others is False:
            expected = f"one of {', '.join(sorted(map(str, known)))}" if known else "no keys"
            yield Problem(place, f"the key {show(key)}", expected, nearest(key, map(str, known)))
        else:
            yield from check_value(item, others, place, depth - 1)
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name not in value:
            wanted = known.get(name)
            kind = _expected_type(wanted.get("type")) if isinstance(wanted, Mapping) else ""
            yield Problem(join(path, name), "nothing", kind or "a value")
