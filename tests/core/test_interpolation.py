from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.interpolation import (
    Copy,
    check_names,
    check_task,
    host_port,
    is_own_variable,
    known_names,
    placeholders,
    substitute,
    substitute_json,
    task_environment,
    values_for,
    variable_part,
)
from khonsu.core.job import Artifact, ArtifactSource, Task
from khonsu.core.records import PortAssignment
from khonsu.errors import DriverError, Problem

NAMES = known_names(["http", "http-alt"], {"owner": "me"}, {"note": "x"})
COPY = Copy(
    job="web",
    group="front",
    task="server",
    allocation="abc123",
    slot=2,
    attempt=3,
    epoch=1 << 40 | 5 << 16 | 3,
    directory="/data/abc123",
    task_directory="/data/abc123/server",
    node="home",
    address="10.0.0.7",
    ports=(PortAssignment(name="http", host=20001, task=20001), PortAssignment(name="http-alt", host=15432, task=5432)),
)


@pytest.mark.parametrize(
    ("text", "names", "result"),
    [
        ("plain", [], "plain"),
        ("${a}", ["a"], "<a>"),
        ("x${a}y${b.c}z", ["a", "b.c"], "x<a>y<b.c>z"),
        ("$a $ $$ $$a 5$ a$", [], "$a $ $$ $$a 5$ a$"),
        ("$${a}", [], "${a}"),
        ("$$${a}", [], "$${a}"),
        ("$${a}${a}", ["a"], "${a}<a>"),
        ("${a", [], "${a"),
        ("${a{b}", [], "${a{b}"),
        ("{a}", [], "{a}"),
        ("${}", [""], "<>"),
        ("${ a }", [" a "], "< a >"),
        ("${${a}}", ["a"], "${<a>}"),
    ],
)
def test_only_braces_after_a_dollar_are_special(text: str, names: list[str], result: str) -> None:
    """`${name}` is replaced, `$${` is a literal `${`, and every other dollar passes unchanged."""
    assert list(placeholders(text)) == names
    assert substitute(text, {name: f"<{name}>" for name in names}) == result


@given(st.text())
def test_a_text_with_doubled_dollars_is_itself(text: str) -> None:
    """Any text can be passed on as it is by writing `$${` for each `${`."""
    assert substitute(text.replace("${", "$${"), {}) == text


@given(st.text("${}ab. "))
def test_what_is_replaced_is_what_was_found(text: str) -> None:
    """The names found at a submit are those that are replaced on the node, no more and no fewer."""
    names = set(placeholders(text))
    substitute(text, dict.fromkeys(names, ""))
    for name in names:
        with pytest.raises(DriverError, match="there is no value for"):
            substitute(text, dict.fromkeys(names - {name}, ""))


def test_values_are_not_looked_into() -> None:
    """What is put in is not replaced again, so that a label cannot ask for more."""
    assert substitute("${a}", {"a": "${b} $${"}) == "${b} $${"


def test_all_texts_of_a_json_value_are_replaced() -> None:
    """Lists and tables are gone through; keys, numbers and the like stay."""
    value = {"${a}": ["${a}", 1, None, True, {"x": "-${a}-"}], "n": 1.5}
    assert substitute_json(value, {"a": "A"}) == {"${a}": ["A", 1, None, True, {"x": "-A-"}], "n": 1.5}


@pytest.mark.parametrize(
    "name",
    [
        "port.http", "address.http", "port.http-alt", "alloc.id", "alloc.slot", "alloc.dir", "alloc.attempt",
        "alloc.epoch", "job.name", "group.name", "task.name", "task.dir", "node.name", "node.attribute.kernel.version",
        "node.label.rack", "meta.owner", "meta.note",
    ],
)  # fmt: skip
def test_known_names(name: str) -> None:
    """Everything that the contract names can be used; what only a node knows is known by how it begins."""
    assert list(check_names(f"${{{name}}}", NAMES, "p")) == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("port.htp", "port.http"),
        ("prot.http", "port.http"),
        ("alloc.idx", "alloc.id"),
        ("meta.ownr", "meta.owner"),
        ("node.lable.rack", None),
        ("node.label.", "node.label.X"),
        ("HOME", None),
        ("", None),
        ("env.PATH:-x", None),
    ],
)
def test_unknown_names(name: str, near: str | None) -> None:
    """An unknown name is a mistake, told with the known ones and the nearest."""
    (problem,) = check_names(f"${{{name}}}", NAMES, "p")
    assert (problem.path, problem.found) == ("p", f"${{{name}}}")
    assert "port.http" in problem.expected
    assert "a literal ${ is written $${" in problem.expected
    if near is not None:
        assert problem.nearest == near


@pytest.mark.parametrize(("name", "feature"), [("secret.password", "secrets"), ("volume.data", "volumes")])
def test_names_of_what_comes_later(name: str, feature: str) -> None:
    """Secrets and volumes have names that cannot be used yet."""
    assert list(check_names(f"${{{name}}}", NAMES, "p")) == [
        Problem("p", f"${{{name}}}", f"no such name: {feature} are not supported yet")
    ]


def test_where_names_are_looked_for() -> None:
    """In the config at any depth, in values of the environment and in sources of artifacts, and nowhere else."""
    task = Task(
        "server",
        {"${x0}": {"args": ["a", "${x1}"], "deep": [{"y": "${x2}"}]}, "n": 1},
        driver="binary",
        env={"A": "${x3}", "${x9}": ""},
        user="${x9}",
        meta={"m": "${x9}"},
        artifacts=[
            Artifact(source="https://${x4}/", destination="${x9}"),
            Artifact(platforms={"linux/arm64": ArtifactSource(source="https://${x5}")}),
        ],
    )
    problems = check_task(task, NAMES, "t")
    assert [(problem.path, problem.found) for problem in problems] == [
        ("t.config.${x0}.args[1]", "${x1}"),
        ("t.config.${x0}.deep[0].y", "${x2}"),
        ("t.env.A", "${x3}"),
        ("t.artifacts[0].source", "${x4}"),
        ("t.artifacts[1].platforms.linux/arm64.source", "${x5}"),
    ]


def test_the_values_of_a_copy() -> None:
    """Every known name has its value on the node; the task's own meta wins over the job's."""
    values = values_for(
        COPY, attributes={"os": "linux"}, labels={"rack": "a"}, metas=[{"owner": "me", "note": "old"}, {"note": "x"}]
    )
    assert values == {
        "port.http": "20001",
        "address.http": "10.0.0.7:20001",
        "port.http-alt": "5432",
        "address.http-alt": "10.0.0.7:15432",
        "alloc.id": "abc123",
        "alloc.slot": "2",
        "alloc.dir": "/data/abc123",
        "alloc.attempt": "3",
        "alloc.epoch": str(1 << 40 | 5 << 16 | 3),
        "job.name": "web",
        "group.name": "front",
        "task.name": "server",
        "task.dir": "/data/abc123/server",
        "node.name": "home",
        "node.attribute.os": "linux",
        "node.label.rack": "a",
        "meta.owner": "me",
        "meta.note": "x",
    }
    assert set(values) - {"node.attribute.os", "node.label.rack"} == {
        name for name in NAMES.known() if not name.endswith(".X")
    }


def test_a_label_that_the_node_does_not_have() -> None:
    """The task cannot be run, and the message says how to keep it off such nodes."""
    values = values_for(COPY, attributes={}, labels={})
    with pytest.raises(DriverError, match=r"no value for \${node.label.rack}.*label.rack is_set"):
        substitute("${node.label.rack}", values)


def test_the_variables_of_a_task() -> None:
    """A task finds its place in its environment."""
    variables = task_environment(COPY)
    assert variables == {
        "KHONSU_ALLOC_ID": "abc123",
        "KHONSU_SLOT": "2",
        "KHONSU_ATTEMPT": "3",
        "KHONSU_EPOCH": str(1 << 40 | 5 << 16 | 3),
        "KHONSU_JOB": "web",
        "KHONSU_NODE": "home",
        "KHONSU_TASK_DIR": "/data/abc123/server",
        "KHONSU_PORT_HTTP": "20001",
        "KHONSU_ADDRESS_HTTP": "10.0.0.7:20001",
        "KHONSU_PORT_HTTP_ALT": "5432",
        "KHONSU_ADDRESS_HTTP_ALT": "10.0.0.7:15432",
    }
    with_secrets = task_environment(COPY, secrets_directory="/s")
    assert with_secrets == {**variables, "KHONSU_SECRETS_DIR": "/s"}
    assert all(is_own_variable(name) for name in with_secrets)


@pytest.mark.parametrize(("name", "own"), [("KHONSU_SERVER", False), ("PATH", False), ("KHONSU_PORT_X", True)])
def test_whose_a_variable_is(name: str, own: bool) -> None:
    """What Khonsu sets for a task cannot be set by its job."""
    assert is_own_variable(name) is own


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (variable_part("a-b.c_d"), "A_B_C_D"),
        (host_port("10.0.0.1", 80), "10.0.0.1:80"),
        (host_port("fd00::1", 80), "[fd00::1]:80"),
        (host_port("node.example", 80), "node.example:80"),
    ],
)
def test_how_parts_are_written(made: Any, expected: str) -> None:
    """Names of ports fit into variables, and IPv6 addresses stand in brackets."""
    assert made == expected
