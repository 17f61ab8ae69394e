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
from khonsu.core.states import JobType
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


# ------------------------------------------------------------------------------------------------ jobs that are right

WORDS = st.text(
    st.characters(categories=["L", "N", "P"], max_codepoint=0x2FF, exclude_characters="$,"), min_size=1, max_size=8
)
CONSTRAINTS = st.one_of(
    st.builds(job.Constraint, WORDS, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "not_in"]), WORDS),
    st.builds(job.Constraint, WORDS, st.just("in"), st.lists(WORDS, min_size=1, max_size=3).map(", ".join)),
    st.builds(job.Constraint, WORDS, st.sampled_from(["is_set", "is_not_set", "distinct"])),
    st.builds(job.Constraint, WORDS, st.just("version"), st.sampled_from([">= 1.2", ">= 1, < 2.0"])),
    st.builds(job.Constraint, WORDS, st.just("regex"), st.sampled_from(["^a", "[0-9]+$"])),
)
SECONDS = st.one_of(st.integers(0, 86_400).map(float), st.floats(0, 86_400))
SHA256 = st.just("ab" * 32)


def _without_nulls(value: Any) -> Any:
    """Return a JSON value with 0 for null, which TOML does not have, and nothing to be replaced."""
    if isinstance(value, dict):
        return {_without_nulls(key): _without_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, str):
        return value.replace("\0", "").replace("${", "$${")
    return 0 if value is None else value


CONFIGS = st.dictionaries(NAMES, JSON_VALUES.map(_without_nulls), max_size=3)
CONFIG_TEXTS = TEXTS.map(_without_nulls)


@st.composite
def policies(draw: st.DrawFn, cls: type) -> Any:
    """Return a strategy for restart and reschedule policies."""
    delay, more = draw(SECONDS), draw(SECONDS)
    within = {"within": draw(st.floats(1, 1e6))} if cls is job.Restart else {}
    attempts = st.integers(0, 100) if cls is job.Restart else st.none() | st.integers(0, 100)
    return cls(attempts=draw(attempts), delay=delay, delay_max=delay + more, **within)


@st.composite
def updates(draw: st.DrawFn) -> job.Update:
    """Return a strategy for update policies."""
    healthy_for, more, most = draw(SECONDS), draw(st.floats(1, 1000)), draw(SECONDS)
    within = healthy_for + more
    return job.Update(
        max_parallel=draw(st.integers(1, 10)),
        healthy_for=healthy_for,
        healthy_within=within,
        progress_within=within + most,
        start_first=draw(st.sampled_from(["auto", False])),
        auto_revert=draw(st.booleans()),
        canary=draw(st.integers(0, 3)),
    )


@st.composite
def right_tasks(draw: st.DrawFn, name: str) -> job.Task:
    """Return a strategy for tasks that `check_job` finds right."""
    cpu, memory = draw(st.integers(0, 64_000)), draw(st.integers(2**20, 2**40))
    resources = job.Resources(
        cpu=Millis(cpu),
        cpu_max=draw(st.none() | st.integers(cpu + 1, 2 * cpu + 1).map(Millis)),
        memory=memory,
        memory_max=draw(st.none() | st.integers(memory, 2 * memory)),
    )
    artifact = st.one_of(
        st.builds(job.Artifact, source=st.just("https://example.org/a"), sha256=st.none() | SHA256),
        st.builds(job.Artifact, source=st.just("file:///a"), sha256=SHA256, destination=st.just("bin/a")),
        st.just(job.Artifact(platforms={"linux/arm64": job.ArtifactSource(source="https://example.org/b")})),
    )
    return job.Task(
        name,
        draw(CONFIGS),
        driver=draw(NAMES),
        resources=resources,
        env=draw(st.dictionaries(st.sampled_from(["A", "b c", "LD.X"]), CONFIG_TEXTS, max_size=2)),
        user=draw(st.none() | NAMES),
        meta=draw(st.dictionaries(NAMES, CONFIG_TEXTS, max_size=2)),
        artifacts=draw(st.lists(artifact, max_size=2)),
        kill_signal=draw(st.sampled_from(["SIGTERM", "SIGINT"])),
        kill_timeout=draw(st.floats(0, 30)),
        shutdown_delay=draw(st.integers(0, 10)),
        logs=job.Logs(files=draw(st.integers(1, 5)), file_size=draw(st.integers(4096, 2**30))),
    )


@st.composite
def right_groups(draw: st.DrawFn, name: str, task_names: list[str], *, everywhere: bool) -> job.Group:
    """Return a strategy for groups that `check_job` finds right."""
    ports = draw(st.lists(st.sampled_from(["http", "a-b", "x.y", "z_1"]), unique=True))
    numbers = draw(st.lists(st.integers(1, 65_535), min_size=len(ports), max_size=len(ports), unique=True))
    kinds = [draw(st.integers(0, 2)) for _ in ports]
    targets = draw(st.dictionaries(WORDS, st.integers(0, 30), max_size=3))
    return job.Group(
        name,
        tasks=[draw(right_tasks(each)) for each in task_names],
        count=1 if everywhere else draw(st.integers(0, 1000)),
        gang=not everywhere and draw(st.booleans()),
        max_per_node=None if everywhere else draw(st.none() | st.integers(1, 5)),
        exclusive=draw(st.booleans()),
        ports=[
            job.Port(port, *([None, None], [number, None], [number, 80])[kind])
            for port, number, kind in zip(ports, numbers, kinds, strict=True)
        ],
        constraints=draw(st.lists(CONSTRAINTS, max_size=2)),
        affinities=draw(
            st.lists(st.builds(job.Affinity, st.builds(job.Constraint, WORDS, st.just("="), WORDS)), max_size=1)
        ),
        spreads=draw(st.lists(st.builds(lambda a: job.Spread(a, targets=targets), WORDS), max_size=1)),
        restart=draw(st.none() | policies(job.Restart)),
        reschedule=draw(st.none() | policies(job.Reschedule)),
        update=draw(updates()),
        disconnect=job.Disconnect(replace_after=draw(SECONDS), stop_after=draw(st.none() | st.floats(1, 100))),
        disk=draw(st.integers(0, 2**40)),
    )


@st.composite
def right_jobs(draw: st.DrawFn) -> job.Job:
    """Return a strategy for jobs that `check_job` finds right, some of which have a short form."""
    name, kind = draw(NAMES), draw(st.sampled_from(JobType))
    single = draw(st.booleans())
    groups = ["main"] if single else draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    tasks = [[name] if single else draw(st.lists(NAMES, min_size=1, max_size=2, unique=True)) for _ in groups]
    return job.Job(
        name,
        groups=[
            draw(right_groups(group, names, everywhere=kind.everywhere))
            for group, names in zip(groups, tasks, strict=True)
        ],
        type=kind,
        priority=draw(st.integers(1, 100)),
        namespace=draw(NAMES),
        scheduler=draw(NAMES),
        pool=draw(NAMES),
        meta=draw(st.dictionaries(NAMES, CONFIG_TEXTS, max_size=2)),
        constraints=draw(st.lists(CONSTRAINTS, max_size=2)),
    )
