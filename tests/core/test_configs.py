from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NewType

import pytest
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.configs import check_configs, check_scheduler, schemas_of
from khonsu.core.ids import NodeId
from khonsu.core.job import Group, Job, Task
from khonsu.core.records import DriverInfo, Node, NodeResources, Time
from khonsu.core.schema import DIALECT, config_schema
from khonsu.core.schemacheck import Checker
from khonsu.core.states import Desired
from khonsu.errors import Problem
from tests.strategies import JSON_VALUES

Word = NewType("Word", str)


@frozen
class Mount:
    """A folder of the node."""

    source: str
    read_only: bool = False


@frozen(kw_only=True)
class Config:
    """What a container runs.

    More about it.
    """

    image: str
    args: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(factory=dict)
    level: int | None = None
    ratio: float = 0.5
    tty: bool = False
    pull: Literal["always", "missing"] = "missing"
    mounts: tuple[Mount, ...] = ()
    extra: Any = None
    word: Word = Word("x")
    desired: Desired = Desired.RUN
    port: int | str = 80


SCHEMA = config_schema(Config)
KEYS = f"one of {', '.join(sorted(SCHEMA['properties']))}"
KEYWORDS = ("type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "anyOf")
STRANGE_SCHEMAS = st.recursive(
    JSON_VALUES, lambda inner: st.dictionaries(st.sampled_from(KEYWORDS), inner | JSON_VALUES), max_leaves=8
)


def found(config: Any, schema: Any = SCHEMA) -> list[Problem]:
    """Return what is wrong with a config."""
    return Checker().check(config, schema, "config")


def test_the_schema_of_a_config() -> None:
    """A config's class says all: keys, types, defaults, what is needed, and that there is nothing else."""
    assert SCHEMA == {
        "$schema": DIALECT,
        "description": "What a container runs.",
        "type": "object",
        "additionalProperties": False,
        "required": ["image"],
        "properties": {
            "image": {"type": "string"},
            "args": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "level": {"type": ["integer", "null"]},
            "ratio": {"type": "number", "default": 0.5},
            "tty": {"type": "boolean", "default": False},
            "pull": {"enum": ["always", "missing"], "default": "missing"},
            "mounts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": "A folder of the node.",
                    "additionalProperties": False,
                    "required": ["source"],
                    "properties": {
                        "source": {"type": "string"},
                        "read_only": {"type": "boolean", "default": False},
                    },
                },
            },
            "extra": {},
            "word": {"type": "string", "default": "x"},
            "desired": {"enum": ["run", "stop"], "default": "run"},
            "port": {"type": ["integer", "string"], "default": 80},
        },
    }


def test_a_type_that_no_file_can_hold() -> None:
    """A driver's author is told at once."""

    @frozen
    class Wrong:
        sets: set[str]

    with pytest.raises(TypeError, match="a config cannot hold"):
        config_schema(Wrong)


@pytest.mark.parametrize(
    "config",
    [
        {"image": "nginx"},
        {"image": "", "args": ["a"], "labels": {"a": "b"}, "level": None, "ratio": 1, "tty": True, "pull": "always"},
        {"image": "x", "mounts": [{"source": "/a", "read_only": True}], "extra": [{"x": None}], "port": "80"},
        {"image": "x", "pull": "${meta.pull}"},
    ],
)
def test_right_configs(config: Mapping[str, Any]) -> None:
    """What the class can be made of is right; a text that is yet to be filled in may become any text."""
    assert found(config) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Problem("config.image", "nothing", "text")),
        ({"image": 3}, Problem("config.image", "3", "text")),
        ({"image": "x", "imag": "y"}, Problem("config.imag", 'the key "imag"', KEYS, "image")),
        ({"image": "x", "args": "a"}, Problem("config.args", '"a"', "a list")),
        ({"image": "x", "args": ["a", 1]}, Problem("config.args[1]", "1", "text")),
        ({"image": "x", "labels": {"a": True}}, Problem("config.labels.a", "true", "text")),
        ({"image": "x", "level": "3"}, Problem("config.level", '"3"', "a whole number or null")),
        ({"image": "x", "level": True}, Problem("config.level", "true", "a whole number or null")),
        ({"image": "x", "ratio": "1"}, Problem("config.ratio", '"1"', "a number")),
        ({"image": "x", "pull": "alway"}, Problem("config.pull", '"alway"', 'one of "always", "missing"', "always")),
        ({"image": "x", "mounts": [{}]}, Problem("config.mounts[0].source", "nothing", "text")),
        ({"image": "x", "port": 1.5}, Problem("config.port", "1.5", "a whole number or text")),
    ],
)  # fmt: skip
def test_wrong_configs(config: Mapping[str, Any], expected: Problem) -> None:
    """A mistake is told with its path, what was found, what would be right, and the nearest name."""
    assert found(config) == [expected]


def test_every_mistake_of_a_config_is_told() -> None:
    """One does not hide the others."""
    wrong = {"args": [1], "imge": "x", "tty": "yes"}
    assert [problem.path for problem in found(wrong)] == ["config.args[0]", "config.imge", "config.tty", "config.image"]


@pytest.mark.parametrize(
    ("value", "schema", "right"),
    [
        (3, {"minimum": 3, "maximum": 3}, True),
        (2, {"minimum": 3}, False),
        (4, {"maximum": 3.5}, False),
        (True, {"minimum": 3}, True),
        (1, {"const": 1}, True),
        (1, {"const": True}, False),
        (True, {"enum": [1]}, False),
        (1, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, True),
        (None, {"anyOf": [{"type": "string"}, {"type": "integer"}]}, False),
        ({"a": 1}, {"additionalProperties": False}, False),
        (1, False, False),
        (1, True, True),
    ],
)
def test_keywords_of_json_schema(value: Any, schema: Any, right: bool) -> None:
    """Limits, choices and alternatives of third-party schemas are understood."""
    assert (found(value, schema) == []) is right


def test_the_nearest_alternative_is_told() -> None:
    """Of several schemas, the one with the fewest mistakes says what is wrong."""
    one = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b", "c"]}
    other = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    assert found({"a": 1}, {"anyOf": [one, other]}) == [Problem("config.a", "1", "text")]


@given(JSON_VALUES, STRANGE_SCHEMAS)
def test_any_schema_does_no_harm(value: Any, schema: Any) -> None:
    """A schema comes from a node and may be anything: checking ends, and only problems come of it."""
    assert all(isinstance(problem, Problem) for problem in found(value, schema))


def test_a_schema_without_end_ends() -> None:
    """However deep schema and value are, checking stops."""
    schema: Any = {}
    value: Any = []
    for _ in range(900):
        schema, value = {"items": schema, "anyOf": [{"type": "array"}]}, [value]
    assert found(value, schema) == []


def test_a_schema_that_multiplies_ends() -> None:
    """Alternatives within alternatives are not all tried: what is left is taken for right."""
    schema: Any = {"type": "null"}
    for _ in range(60):
        schema = {"anyOf": [schema, schema]}
    assert Checker(steps=10_000).check(3, schema, "config") == []


def test_very_many_mistakes_are_cut() -> None:
    """A config that is nothing but mistakes is told with the first thousand."""
    assert len(found({"image": "x", "args": [1] * 10_000})) == 1000
    assert len(found({f"k{index}": 1 for index in range(10_000)})) == 1000


# ----------------------------------------------------------------------------------------------- with the nodes at hand


def node(name: str, *drivers: DriverInfo) -> Node:
    """Return a node with some drivers."""
    resources = NodeResources(cpu_millis=1, memory_bytes=1, disk_bytes=1)
    return Node(id=NodeId(name), name=name, resources=resources, drivers=drivers, joined_at=Time(0), status_at=Time(0))


def job(driver: str, config: Mapping[str, Any], scheduler: str = "binpack") -> Job:
    """Return a job with a right task and another."""
    tasks = [Task("a", {"image": "x"}, driver="oci"), Task("b", config, driver=driver)]
    return Job("web", groups=[Group("g", tasks=tasks)], scheduler=scheduler)


SCHEMAS = {"oci": SCHEMA, "binary": {"type": "object", "required": ["command"]}}


def test_configs_are_checked_by_their_drivers_schemas() -> None:
    """Each task's config is held against what the nodes say of its driver."""
    assert check_configs(job("oci", {"image": "y"}), SCHEMAS) == ()
    assert check_configs(job("binary", {}), SCHEMAS) == (
        Problem("groups[0].tasks[1].config.command", "nothing", "a value"),
    )


def test_a_driver_that_no_node_has() -> None:
    """The known ones are listed; as long as no node is known, nothing is."""
    assert check_configs(job("binry", {}), SCHEMAS) == (
        Problem("groups[0].tasks[1].driver", '"binry"', "a driver that a node has: binary, oci", "binary"),
    )
    assert check_configs(job("binry", {}), {}) == ()


def test_a_scheduler_that_is_not_there() -> None:
    """The known ones are listed with the nearest."""
    assert check_scheduler(job("oci", {}), ["binpack", "spread"]) == ()
    assert check_scheduler(job("oci", {}, "binpak"), ["spread", "binpack"]) == (
        Problem("scheduler", '"binpak"', "a scheduler of this cluster: binpack, spread", "binpack"),
    )


def test_nodes_may_differ_in_their_schemas() -> None:
    """While a cluster is upgraded, what one node can run is right."""
    old = DriverInfo(
        name="oci", config_schema={"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    )
    new = DriverInfo(name="oci", config_schema={"type": "object", "properties": {"a": {}, "b": {}}})
    schemas = schemas_of([node("n1", old), node("n2", new), node("n3", old), node("n4", DriverInfo(name="binary"))])
    assert schemas == {"oci": {"anyOf": [old.config_schema, new.config_schema]}, "binary": {}}
    assert found({"b": 1}, schemas["oci"]) == []
    assert schemas_of([node("n1", old)]) == {"oci": old.config_schema}
    assert schemas_of([]) == {}
