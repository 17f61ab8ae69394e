from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from khonsu.core.job import (
    Affinity,
    Artifact,
    ArtifactSource,
    Check,
    Constraint,
    Device,
    Disconnect,
    Group,
    Job,
    Logs,
    Periodic,
    Port,
    Reschedule,
    Resources,
    Restart,
    SecretUse,
    Spread,
    Task,
    Update,
    Volume,
)
from khonsu.core.states import JobType
from khonsu.core.validate import check_job, ensure_valid
from khonsu.errors import InvalidJob
from tests.effort import examples
from tests.strategies import right_jobs

SOURCE = "https://example.org/a.tar.gz"
SHA256 = "0123456789abcdefABCDEF0123456789" * 2


def task(name: str = "t", **changes: Any) -> Task:
    """Return a right task with some changes."""
    return Task(name, changes.pop("config", {"command": "x"}), **{"driver": "binary", **changes})


def group(name: str = "g", **changes: Any) -> Group:
    """Return a right group with some changes."""
    return Group(name, **{"tasks": [task()], **changes})


def job(**changes: Any) -> Job:
    """Return a right job with some changes."""
    return Job(changes.pop("name", "web"), **{"groups": [group()], **changes})


def found(wrong: Job) -> dict[str, str]:
    """Return what is wrong with a job, by path."""
    return {problem.path: problem.expected for problem in check_job(wrong)}


@examples(25)
@given(right_jobs())
def test_a_right_job_has_no_mistakes(right: Job) -> None:
    """What is right is returned as it is."""
    assert check_job(right) == ()
    assert ensure_valid(right) is right


def test_a_wrong_job_is_refused() -> None:
    """All mistakes are in one error."""
    with pytest.raises(InvalidJob) as caught:
        ensure_valid(job(name="", priority=0))
    assert [problem.path for problem in caught.value.problems] == ["name", "priority"]


@pytest.mark.parametrize("name", ["", "a" * 64, "Web", "a/b", "a b", "-a", ".a", "_a", "ä", "a\n", "..", "a\0"])
@pytest.mark.parametrize("field", ["name", "namespace", "pool", "scheduler"])
def test_names_of_a_job(field: str, name: str) -> None:
    """A name is up to 63 small letters, digits, dots, dashes and underscores, and holds no slash."""
    assert list(found(job(**{field: name}))) == [field]


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, "a-b.c_d", "9.9"])
def test_right_names(name: str) -> None:
    """What is used every day is a name."""
    assert found(job(name=name, groups=[group(name, tasks=[task(name)], ports={name: "dynamic"})])) == {}


G = "groups[0]"
T = "groups[0].tasks[0]"


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (job(priority=0), "priority"),
        (job(priority=101), "priority"),
        (job(groups=[]), "groups"),
        (job(groups=[group(f"g{i}") for i in range(10_001)]), "groups"),
        (job(groups=[group("a"), group("b"), group("a")]), "groups[2].name"),
        (job(groups=[group("A")]), f"{G}.name"),
        (job(groups=[group(tasks=[])]), f"{G}.tasks"),
        (job(groups=[group(tasks=[task(f"t{i}") for i in range(101)])]), f"{G}.tasks"),
        (job(groups=[group(tasks=[task("a"), task("a")])]), f"{G}.tasks[1].name"),
        (job(groups=[group(count=-1)]), f"{G}.count"),
        (job(groups=[group(count=1_000_001)]), f"{G}.count"),
        (job(groups=[group(max_per_node=0)]), f"{G}.max_per_node"),
        (job(groups=[group(ports={"a": 0})]), f"{G}.ports.a.host"),
        (job(groups=[group(ports={"a": 65_536})]), f"{G}.ports.a.host"),
        (job(groups=[group(ports={"a": {"host": 1, "task": -1}})]), f"{G}.ports.a.task"),
        (job(groups=[group(ports={"A b": "dynamic"})]), f"{G}.ports.A b.name"),
        (job(groups=[group(ports={"a": 80, "b": 80})]), f"{G}.ports.b"),
        (job(groups=[group(ports={"a-b": 80, "a.b": 81})]), f"{G}.ports.a.b"),
        (job(groups=[group(ports=[Port("a"), Port("a")])]), f"{G}.ports.a"),
        (job(groups=[group(restart=Restart(attempts=-1))]), f"{G}.restart.attempts"),
        (job(groups=[group(restart=Restart(within=0))]), f"{G}.restart.within"),
        (job(groups=[group(restart=Restart(delay="2m"))]), f"{G}.restart.delay"),
        (job(groups=[group(reschedule=Reschedule(attempts=-1))]), f"{G}.reschedule.attempts"),
        (job(groups=[group(reschedule=Reschedule(delay="2h"))]), f"{G}.reschedule.delay"),
        (job(groups=[group(reschedule=Reschedule(delay_max="9999d"))]), f"{G}.reschedule.delay_max"),
        (job(groups=[group(update=Update(max_parallel=0))]), f"{G}.update.max_parallel"),
        (job(groups=[group(update=Update(canary=-1))]), f"{G}.update.canary"),
        (job(groups=[group(update=Update(healthy_for="5m"))]), f"{G}.update.healthy_for"),
        (job(groups=[group(update=Update(healthy_within="15m"))]), f"{G}.update.progress_within"),
        (job(groups=[group(update=Update(start_first=True), exclusive=True)]), f"{G}.update.start_first"),
        (job(groups=[group(disconnect=Disconnect(stop_after=0))]), f"{G}.disconnect.stop_after"),
        (job(groups=[group(disk="65TiB")]), f"{G}.disk"),
        (job(groups=[group(tasks=[task(driver="No Such")])]), f"{T}.driver"),
        (job(groups=[group(tasks=[task(resources=Resources(cpu=999_999.5, cpu_max=1))])]), f"{T}.resources.cpu_max"),
        (job(groups=[group(tasks=[task(resources=Resources(cpu_max=0, cpu=0))])]), f"{T}.resources.cpu_max"),
        (job(groups=[group(tasks=[task(resources=Resources(memory="1KiB"))])]), f"{T}.resources.memory"),
        (job(groups=[group(tasks=[task(resources=Resources(memory_max="64MiB"))])]), f"{T}.resources.memory_max"),
        (job(groups=[group(tasks=[task(kill_signal="SIGSTOP")])]), f"{T}.kill_signal"),
        (job(groups=[group(tasks=[task(kill_timeout="2d")])]), f"{T}.kill_timeout"),
        (job(groups=[group(tasks=[task(kill_timeout="31s")], exclusive=True)]), f"{T}.kill_timeout"),
        (job(groups=[group(tasks=[task(shutdown_delay="2d")])]), f"{T}.shutdown_delay"),
        (job(groups=[group(tasks=[task(logs=Logs(files=0))])]), f"{T}.logs.files"),
        (job(groups=[group(tasks=[task(logs=Logs(file_size=1))])]), f"{T}.logs.file_size"),
        (job(groups=[group(tasks=[task(user="")])]), f"{T}.user"),
        (job(groups=[group(tasks=[task(user="a b")])]), f"{T}.user"),
        (job(groups=[group(tasks=[task(env={"A=B": "x"})])]), f"{T}.env.A=B"),
        (job(groups=[group(tasks=[task(env={"": "x"})])]), f'{T}.env.""'),
        (job(groups=[group(tasks=[task(env={"KHONSU_PORT_HTTP": "x"})])]), f"{T}.env.KHONSU_PORT_HTTP"),
        (job(groups=[group(tasks=[task(env={"A": "x\0"})])]), f"{T}.env.A"),
        (job(groups=[group(tasks=[task(env={"A": "\ud800"})])]), f"{T}.env.A"),
        (job(groups=[group(tasks=[task(env={"A": "x" * 131_073})])]), f"{T}.env.A"),
        (job(groups=[group(tasks=[task(config={"a": [1, {"b": "\0"}]})])]), f"{T}.config.a[1].b"),
        (job(meta={"a\0": "b"}), "meta"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_mistake(wrong: Job, path: str) -> None:
    """Each rule finds its mistake, and nothing else is found."""
    assert list(found(wrong)) == [path]


def test_variables_of_khonsu_itself_may_be_set() -> None:
    """Only the variables that tasks are given are taken; a task may be a Khonsu of its own."""
    assert found(job(groups=[group(tasks=[task(env={"KHONSU_SERVER": "https://x", "a.b": ""})])])) == {}


@pytest.mark.parametrize(
    ("constraint", "path"),
    [
        (Constraint("", "=", "x"), ".attribute"),
        (Constraint("a b", "=", "x"), ".attribute"),
        (Constraint("a", "==", "x"), ".operator"),
        (Constraint("a", "=", ""), ".value"),
        (Constraint("a", "is_set", "x"), ".value"),
        (Constraint("a", "distinct", "2"), ".value"),
        (Constraint("a", "version", "new"), ".value"),
        (Constraint("a", "regex", "("), ".value"),
        (Constraint("a", "regex", "(a+)+$"), ".value"),
        (Constraint("a", "in", "x,,y"), ".value"),
        (Constraint("a", "=", "x\0"), ".value"),
    ],
)
def test_constraints(constraint: Constraint, path: str) -> None:
    """An operator must be known and have a value that it can take, in jobs, groups and affinities alike."""
    assert list(found(job(constraints=[constraint]))) == [f"constraints[0]{path}"]
    assert list(found(job(groups=[group(constraints=[constraint])]))) == [f"{G}.constraints[0]{path}"]
    if constraint.operator != "distinct":
        assert list(found(job(affinities=[Affinity(constraint)]))) == [f"affinities[0].where{path}"]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (job(affinities=[Affinity("a = b", 101)]), "affinities[0].weight"),
        (job(affinities=[Affinity("a = b", -101)]), "affinities[0].weight"),
        (job(affinities=[Affinity("a distinct")]), "affinities[0].where.operator"),
        (job(spreads=[Spread("")]), "spreads[0].attribute"),
        (job(spreads=[Spread("a", weight=-1)]), "spreads[0].weight"),
        (job(spreads=[Spread("a", targets={"x": 60, "y": 41})]), "spreads[0].targets"),
        (job(spreads=[Spread("a", targets={"x": -1})]), "spreads[0].targets.x"),
    ],
)
def test_wishes(wrong: Job, path: str) -> None:
    """Weights and shares have limits."""
    assert list(found(wrong)) == [path]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (job(groups=[group(tasks=[task(checks=[Check(type="tcp")])])]), f"{T}.checks"),
        (job(groups=[group(tasks=[task(volumes=[Volume(name="v", path="/v")])])]), f"{T}.volumes"),
        (job(groups=[group(tasks=[task(secrets=[SecretUse(name="s")])])]), f"{T}.secrets"),
        (job(groups=[group(tasks=[task(lifecycle={"hook": "x"})])]), f"{T}.lifecycle"),
        (job(groups=[group(tasks=[task(depends_on=["x"])])]), f"{T}.depends_on"),
        (job(groups=[group(tasks=[task(templates=[{"a": 1}])])]), f"{T}.templates"),
        (job(groups=[group(tasks=[task(isolation="L2")])]), f"{T}.isolation"),
        (
            job(groups=[group(tasks=[task(resources=Resources(devices=[Device(name="gpu")]))])]),
            f"{T}.resources.devices",
        ),
        (job(periodic=Periodic(cron="* * * * *")), "periodic"),
        (job(parameters={"a": 1}), "parameters"),
        (job(groups=[group(tasks=[task(env={"A": "${secret.x}"})])]), f"{T}.env.A"),
        (job(groups=[group(tasks=[task(env={"A": "${volume.x}"})])]), f"{T}.env.A"),
    ],
)
def test_what_comes_later(wrong: Job, path: str) -> None:
    """What the library does not do yet is refused, and never silently ignored."""
    assert "not supported yet" in found(wrong)[path]
    assert len(found(wrong)) == 1


@pytest.mark.parametrize("job_type", [JobType.SYSTEM, JobType.SYSBATCH])
def test_a_job_for_every_node_has_no_count(job_type: JobType) -> None:
    """One copy on every node leaves nothing to count, to place at once or to limit."""
    assert found(job(type=job_type)) == {}
    assert list(found(job(type=job_type, groups=[group(count=2, gang=True, max_per_node=1)]))) == [
        f"{G}.count",
        f"{G}.gang",
        f"{G}.max_per_node",
    ]


@pytest.mark.parametrize(
    "right",
    [
        Artifact(source=SOURCE),
        Artifact(source=SOURCE, sha256=SHA256, destination="bin/tool"),
        Artifact(source="http://10.0.0.1:8080/a", sha256=SHA256),
        Artifact(source="file:///opt/a", sha256=SHA256),
        Artifact(source="${meta.base}/a"),
        Artifact(source="https://example.org/${node.attribute.arch}"),
        Artifact(platforms={"linux/amd64": ArtifactSource(source=SOURCE)}),
        Artifact(source=SOURCE, platforms={"darwin/arm64": ArtifactSource(source="file:///a", sha256=SHA256)}),
    ],
)
def test_right_artifacts(right: Artifact) -> None:
    """An artifact comes by https, or by http or file where a digest pins it."""
    assert found(job(meta={"base": "x"}, groups=[group(tasks=[task(artifacts=[right])])])) == {}


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (Artifact(), ".source"),
        (Artifact(sha256=SHA256, platforms={"linux/arm64": ArtifactSource(source=SOURCE)}), ".sha256"),
        (Artifact(source="http://example.org/a"), ".source"),
        (Artifact(source="file:///a"), ".source"),
        (Artifact(source="file://", sha256=SHA256), ".source"),
        (Artifact(source="ftp://example.org/a", sha256=SHA256), ".source"),
        (Artifact(source="example.org/a"), ".source"),
        (Artifact(source="https:///a"), ".source"),
        (Artifact(source="https://[::1/a"), ".source"),
        (Artifact(source=""), ".source"),
        (Artifact(source=SOURCE, sha256="abc"), ".sha256"),
        (Artifact(source=SOURCE, destination="/etc/passwd"), ".destination"),
        (Artifact(source=SOURCE, destination="a/../../b"), ".destination"),
        (Artifact(source=SOURCE, destination=""), ".destination"),
        (Artifact(platforms={"linux/x86": ArtifactSource(source=SOURCE)}), ".platforms.linux/x86"),
        (Artifact(platforms={"linux/arm64": ArtifactSource(source="x")}), ".platforms.linux/arm64.source"),
        (
            Artifact(platforms={"linux/arm64": ArtifactSource(source=SOURCE, sha256="x")}),
            ".platforms.linux/arm64.sha256",
        ),
        (Artifact(source="https://example.org/${port.http}"), ".source"),
    ],
)
def test_wrong_artifacts(wrong: Artifact, path: str) -> None:
    """Everything else is refused before a node fetches it, and nothing is written outside of the task's directory."""
    assert list(found(job(groups=[group(tasks=[task(artifacts=[wrong])])]))) == [f"{T}.artifacts[0]{path}"]


def test_quantities_are_told_with_their_units() -> None:
    """People read what they wrote, not its number of bytes or seconds."""
    wrong = job(groups=[group(tasks=[task(resources=Resources(memory="1KiB"), kill_timeout="2d")])])
    assert [(problem.found, problem.expected) for problem in check_job(wrong)] == [
        ("1KiB", "1MiB to 64TiB"),
        ("2d", "0s to 1d"),
    ]
    least = check_job(job(groups=[group(restart=Restart(within=0))]))[0]
    assert least.expected == "more than 0s, at most 3650d"


def test_every_mistake_is_found() -> None:
    """Mistakes in different places do not hide each other."""
    wrong = job(
        name="A",
        groups=[
            group(count=-1, tasks=[task(env={"A": "${nope} ${port.x}"}), task("b", kill_signal="x")]),
            group("h", ports={"a": 0}),
        ],
    )
    assert [problem.path for problem in check_job(wrong)] == [
        "name",
        "groups[0].tasks[1].kill_signal",
        "groups[0].count",
        "groups[1].ports.a.host",
        "groups[0].tasks[0].env.A",
        "groups[0].tasks[0].env.A",
    ]
