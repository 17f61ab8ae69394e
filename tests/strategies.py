"""Hypothesis strategies for every value class of the model, made from the classes themselves."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs
from hypothesis import strategies as st

from khonsu.core import job, protocol, records, results
from khonsu.core.records import Time
from khonsu.core.revision import Revision
from khonsu.core.units import Millis
from khonsu.core.value import Value

# Half a character has no UTF-8 form; the codec refuses it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.from_regex(r"[a-z0-9][-._a-z0-9]{0,8}", fullmatch=True)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
# Microseconds are what a time has in JSON.
TIMES = st.integers(0, 4_000_000_000_000_000).map(lambda micros: micros / 1_000_000)
SCALARS: Mapping[object, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: st.integers(0, 2**40),
    float: st.floats(0, 1e9),
    bool: st.booleans(),
    Any: JSON_VALUES,
    Time: TIMES,
    NoneType: st.none(),
    Revision: st.builds(Revision, st.integers(0, 2**20), st.integers(0, 2**40)),
}


def value_classes() -> list[type]:
    """Return every attrs class of the job, the records, the protocol and the results."""
    modules = (job, records, protocol, results)
    found = {thing for module in modules for thing in vars(module).values() if isinstance(thing, type)}
    classes = [cls for cls in found if attrs.has(cls) and cls.__module__.startswith("khonsu.core.")]
    without = {Value, records.Kind, Revision}
    return sorted((cls for cls in classes if cls not in without), key=lambda cls: cls.__name__)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a class or type."""
    if kind in SCALARS:
        return SCALARS[kind]
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of([values(part) for part in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(TEXTS, values(arguments[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    if attrs.has(kind):
        return st.deferred(lambda: instances(kind))
    return values(kind.__supertype__)


def instances(cls: type) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of an attrs class."""
    attributes: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(cls))
    if cls is job.Task:
        return st.fixed_dictionaries({a.name: values(a.type) for a in attributes}).map(_task)
    arguments = {str(a.alias): values(a.type) for a in attributes}
    if cls is job.Resources:
        arguments |= {
            "cpu": st.integers(0, 10**9).map(Millis),
            "cpu_max": st.none() | st.integers(1, 10**9).map(Millis),
        }
    return st.fixed_dictionaries(arguments).map(lambda given: cls(**given))


def _task(given: dict[str, Any]) -> job.Task:
    name, config = given.pop("name"), given.pop("config")
    driver = given.pop("driver") or "binary"
    times = {short: given.pop(f"{short}_seconds") for short in ("kill_timeout", "shutdown_delay")}
    return job.Task(name, config, driver=driver, **times, **given)
