from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import pytest
from attrs import field, frozen

from khonsu.core.about import about_of
from khonsu.core.job import (
    OPERATORS,
    Affinity,
    Constraint,
    Group,
    Job,
    Port,
    Reschedule,
    Resources,
    Restart,
    Task,
    Update,
    Volume,
)
from khonsu.core.reader import attributes_of
from khonsu.core.states import JobType
from tests.strategies import value_classes


@frozen
class FakeConfig:
    """A driver's config."""

    driver: ClassVar[str] = "fake"

    command: str
    args: tuple[str, ...] = ()
    level: int = 3
    labels: Mapping[str, str] = field(factory=dict)


TASK = Task("t", FakeConfig("x"))


def test_the_driver_comes_from_the_type_of_the_config() -> None:
    """A config value names its driver, and only what is not its default is kept."""
    task = Task("t", FakeConfig("x", args=("a", "b")))
    assert task.driver == "fake"
    assert task.config == {"command": "x", "args": ["a", "b"]}
    assert Task("t", FakeConfig("x"), driver="other").driver == "other"


def test_a_mapping_needs_a_driver() -> None:
    """A mapping does not say for whom it is, and something else is no config."""
    assert Task("t", {"a": (1, 2)}, driver="binary").config == {"a": [1, 2]}
    with pytest.raises(ValueError, match="needs driver="):
        Task("t", {})
    with pytest.raises(TypeError, match="is not a driver's config or a mapping"):
        Task("t", 3)


def test_quantities_are_converted_when_a_value_is_made() -> None:
    """Arguments are as people write them; attributes carry their unit in the name."""
    resources = Resources(cpu=0.25, memory="64MiB", cpu_max=2)
    assert (resources.cpu_millis, resources.memory_bytes, resources.cpu_max_millis) == (250, 2**26, 2000)
    assert Resources() == Resources(cpu=0.1, memory="128MiB")
    assert Group("g", tasks=[TASK], disk="1GB").disk_bytes == 10**9
    assert Restart(within="24h").within_seconds == 86_400
    assert Task("t", {}, driver="d", kill_timeout="1m").kill_timeout_seconds == 60


def test_a_single_job() -> None:
    """One group `main`, one task named after the job; wishes go to the job, the rest to group and task."""
    job = Job.single(
        "web", FakeConfig("x"), count=2, ports={"http": "dynamic", "db": 5432, "m": {"host": 1, "task": 2}},
        constraints=["os = linux"], env={"A": "b"}, type="batch", disk=5,
    )  # fmt: skip
    group = job.groups[0]
    assert (job.type, job.constraints, group.name, group.count) == (
        JobType.BATCH,
        (Constraint("os", "=", "linux"),),
        "main",
        2,
    )
    assert group.ports == (Port("http"), Port("db", 5432), Port("m", 1, 2))
    assert (group.disk_bytes, group.tasks[0].name, group.tasks[0].env) == (5, "web", {"A": "b"})
    assert job.group("main") is group
    assert job.group("other") is None


@pytest.mark.parametrize("wrong", ["static", True, 1.5, None, {"host": 1, "x": 2}, [1]])
def test_what_is_no_port(wrong: Any) -> None:
    """A port is dynamic, a number or a table of host and task."""
    with pytest.raises(ValueError, match=r"port http: .* is not"):
        Group("g", tasks=[TASK], ports={"http": wrong})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("os = linux", Constraint("os", "=", "linux")),
        ("  label.disk   !=   ssd  ", Constraint("label.disk", "!=", "ssd")),
        ("x in a, b c", Constraint("x", "in", "a, b c")),
        ("kernel.version version >= 5, < 7", Constraint("kernel.version", "version", ">= 5, < 7")),
        ("label.gpu is_set", Constraint("label.gpu", "is_set")),
        ("label.rack distinct", Constraint("label.rack", "distinct")),
        ("x = =", Constraint("x", "=", "=")),
    ],
)
def test_constraints_as_text(text: str, expected: Constraint) -> None:
    """A constraint is three words, the last of which may hold blanks, or two; its text is read back as the same."""
    assert Constraint.parse(text) == expected
    assert Constraint.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "os", "os =", "os linux", "os == linux", "is_set x", "x is_set y", "x is_not_set 1"]
)
def test_what_is_no_constraint(text: str) -> None:
    """Everything else is refused with the operators that there are."""
    with pytest.raises(ValueError, match=" ".join(OPERATORS[:2])):
        Constraint.parse(text)


def test_the_values_of_a_list() -> None:
    """Commas separate, and blanks around a value do not count."""
    assert Constraint.parse("x in a , b c,d").values == ("a", "b c", "d")
    assert Affinity("x = y").where == Constraint("x", "=", "y")


@pytest.mark.parametrize(
    ("job_type", "restart", "reschedule"),
    [
        (JobType.SERVICE, Restart(attempts=3, within="10m"), Reschedule(attempts=None)),
        (JobType.SYSTEM, Restart(attempts=3, within="10m"), Reschedule(attempts=None)),
        (JobType.BATCH, Restart(attempts=3, within="24h"), Reschedule(attempts=1)),
        (JobType.SYSBATCH, Restart(attempts=3, within="24h"), Reschedule(attempts=1)),
    ],
)
def test_policies_by_the_jobs_type(job_type: JobType, restart: Restart, reschedule: Reschedule) -> None:
    """A group without policies of its own has those of the job's type; with some, it has those."""
    group = Group("g", tasks=[TASK])
    assert group.restart_policy(job_type) == restart
    assert group.reschedule_policy(job_type) == reschedule
    own = attrs.evolve(group, restart=Restart(attempts=0), reschedule=Reschedule(attempts=7))
    assert own.restart_policy(job_type) == Restart(attempts=0)
    assert own.reschedule_policy(job_type) == Reschedule(attempts=7)


@pytest.mark.parametrize(
    ("changes", "job_type", "expected"),
    [
        ({}, JobType.SERVICE, True),
        ({}, JobType.BATCH, False),
        ({}, JobType.SYSTEM, False),
        ({"ports": {"a": "dynamic"}}, JobType.SERVICE, True),
        ({"ports": {"a": 80}}, JobType.SERVICE, False),
        ({"exclusive": True}, JobType.SERVICE, False),
        ({"tasks": [Task("t", {}, driver="d", volumes=[Volume(name="v", path="/v")])]}, JobType.SERVICE, False),
        (
            {"tasks": [Task("t", {}, driver="d", volumes=[Volume(name="v", path="/v", read_only=True)])]},
            JobType.SERVICE,
            True,
        ),
        ({"update": Update(start_first=False)}, JobType.SERVICE, False),
        ({"update": Update(start_first=True), "ports": {"a": 80}}, JobType.SERVICE, True),
        ({"update": Update(start_first=True), "exclusive": True}, JobType.SERVICE, False),
    ],
)
def test_whether_a_new_copy_starts_first(changes: dict[str, Any], job_type: JobType, expected: bool) -> None:
    """`auto` is yes where two copies cannot get into each other's way."""
    assert Group("g", **{"tasks": [TASK], **changes}).starts_first(job_type) is expected


def test_what_a_copy_takes_of_a_node() -> None:
    """The tasks' reservations are summed; stopping takes as long as the slowest task."""
    group = Group(
        "g",
        tasks=[
            Task("a", {}, driver="d", resources=Resources(cpu=1, memory=2**20), kill_timeout=3),
            Task("b", {}, driver="d", resources=Resources(cpu=0.5, memory=2**21), shutdown_delay=5),
        ],
        disk=7,
    )
    assert group.demand() == {"cpu": 1500, "memory": 3 * 2**20, "disk": 7}
    assert group.kill_timeout_seconds == 15


def test_values_are_frozen_and_compare_by_content() -> None:
    """A job cannot be changed, and equal jobs are equal however they were made."""
    job = Job.single("web", FakeConfig("x"))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        job.name = "other"  # type: ignore[misc]
    assert job == Job("web", groups=[Group("main", tasks=[Task("web", {"command": "x"}, driver="fake")])])


def test_every_field_of_a_job_says_what_it_is_about() -> None:
    """Each field that people write has a sentence and, where it is a number, limits."""
    modules = ("khonsu.core.job", "khonsu.core.task", "khonsu.core.policies", "khonsu.core.conditions")
    for cls in value_classes():
        if cls.__module__ in modules:
            for attribute in attributes_of(cls):
                facts = about_of(attribute)
                assert facts is not None, f"{cls.__name__}.{attribute.name}"
                assert facts.text.endswith(".")
