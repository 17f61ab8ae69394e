from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.brief import brief_job
from khonsu.core.codec import to_json
from khonsu.core.job import (
    Affinity,
    Artifact,
    ArtifactSource,
    Constraint,
    Disconnect,
    Group,
    Job,
    Logs,
    Port,
    Reschedule,
    Resources,
    Restart,
    Spread,
    Task,
    Update,
)
from khonsu.core.parse import parse_job, parse_jobs
from khonsu.core.reader import PASSED_OVER_MAX
from khonsu.core.states import JobType
from khonsu.errors import InvalidJob, Problem
from tests.effort import examples
from tests.strategies import JSON_VALUES, right_jobs

SHORT: dict[str, Any] = {"name": "web", "driver": "binary", "config": {"command": "/bin/true"}}
LONG: dict[str, Any] = {
    "name": "web",
    "groups": [{"name": "front", "tasks": [{"name": "server", "driver": "binary", "config": {"command": "x"}}]}],
}
# One of everything that is supported, as people write it.
FULL = """
name = "web"
type = "batch"
priority = 70
namespace = "team-a"
scheduler = "spread"
pool = "big"
meta = { owner = "me" }
constraints = ["os = linux", { attribute = "label.disk", operator = "in", value = "ssd, nvme" }]
affinities = [{ where = "label.site = home", weight = -20 }]
spreads = [{ attribute = "label.rack", weight = 60, targets = { a = 60, b = 40 } }]

[[groups]]
name = "front"
count = 3
gang = true
max_per_node = 2
ports = { http = "dynamic", admin = 8080, db = { host = 15432, task = 5432 }, metrics = { task = 9100 } }
constraints = ["arch = amd64"]
affinities = [{ where = { attribute = "label.old", operator = "is_set" } }]
spreads = [{ attribute = "label.rack" }]
restart = { attempts = 5, delay = "1s" }
reschedule = { attempts = "unlimited", delay_max = "1h" }
update = { max_parallel = 2, healthy_for = "10s", healthy_within = "1m", progress_within = 120, start_first = false }
disconnect = { replace_after = "30s", stop_after = "5m", keep = "original" }
disk = "1GB"

[[groups.tasks]]
name = "server"
driver = "binary"
user = "web"
env = { PORT = "${port.http}", PRICE = "5$" }
meta = { note = "x" }
kill_signal = "SIGINT"
kill_timeout = "20s"
shutdown_delay = 1.5
logs = { files = 3, file_size = "1MiB" }
resources = { cpu = 0.25, cpu_max = 2, memory = "64MiB", memory_max = "1GiB" }

[groups.tasks.config]
command = "server"
args = ["--note", "${meta.note} of ${meta.owner}"]

[[groups.tasks.artifacts]]
source = "https://example.org/a"
destination = "bin/a"
platforms = { "linux/arm64" = { source = "https://example.org/b" } }
"""
FULL_JOB = Job(
    "web",
    type=JobType.BATCH,
    priority=70,
    namespace="team-a",
    scheduler="spread",
    pool="big",
    meta={"owner": "me"},
    constraints=["os = linux", Constraint("label.disk", "in", "ssd, nvme")],
    affinities=[Affinity("label.site = home", -20)],
    spreads=[Spread("label.rack", weight=60, targets={"a": 60, "b": 40})],
    groups=[
        Group(
            "front",
            count=3,
            gang=True,
            max_per_node=2,
            ports=[Port("http"), Port("admin", 8080), Port("db", 15432, 5432), Port("metrics", None, 9100)],
            constraints=["arch = amd64"],
            affinities=[Affinity(Constraint("label.old", "is_set"))],
            spreads=[Spread("label.rack")],
            restart=Restart(attempts=5, within="24h", delay="1s"),
            reschedule=Reschedule(delay_max="1h"),
            update=Update(max_parallel=2, healthy_for=10, healthy_within=60, progress_within=120, start_first=False),
            disconnect=Disconnect(replace_after=30, stop_after="5m", keep="original"),
            disk=10**9,
            tasks=[
                Task(
                    "server",
                    {"command": "server", "args": ["--note", "${meta.note} of ${meta.owner}"]},
                    driver="binary",
                    user="web",
                    env={"PORT": "${port.http}", "PRICE": "5$"},
                    meta={"note": "x"},
                    kill_signal="SIGINT",
                    kill_timeout=20,
                    shutdown_delay=1.5,
                    logs=Logs(files=3, file_size=2**20),
                    resources=Resources(cpu=0.25, cpu_max=2, memory="64MiB", memory_max="1GiB"),
                    artifacts=[
                        Artifact(
                            source="https://example.org/a",
                            destination="bin/a",
                            platforms={"linux/arm64": ArtifactSource(source="https://example.org/b")},
                        )
                    ],
                )
            ],
        )
    ],
)


def problems(table: Any, **options: Any) -> list[Problem]:
    """Return what is wrong with a table."""
    with pytest.raises(InvalidJob) as caught:
        parse_job(table, **options)
    return list(caught.value.problems)


def paths(table: Any) -> list[str]:
    """Return where the mistakes of a table are."""
    return [problem.path for problem in problems(table)]


def test_the_short_form() -> None:
    """A driver at the top means one group `main` with one task named after the job, as `Job.single` makes it."""
    table = {**SHORT, "count": 3, "ports": {"http": "dynamic"}, "resources": {"cpu": 1}, "constraints": ["os = linux"]}
    assert parse_job(table) == Job.single(
        "web",
        {"command": "/bin/true"},
        driver="binary",
        count=3,
        ports={"http": "dynamic"},
        resources=Resources(cpu=1),
        constraints=["os = linux"],
    )


def test_the_long_form_with_everything() -> None:
    """Every supported field is read in the words that people use."""
    assert parse_job(tomllib.loads(FULL)) == FULL_JOB


@examples(25)
@given(right_jobs())
def test_a_right_job_is_read_back_from_its_json(job: Job) -> None:
    """What the codec writes, with the attributes' own names, is read as the same job."""
    assert parse_job(to_json(job)) == job


@examples(25)
@given(right_jobs())
def test_a_right_job_is_read_back_from_its_brief_form(job: Job) -> None:
    """What people would write, with short keys and units, is read as the same job."""
    assert parse_job(brief_job(job)) == job


@pytest.mark.parametrize(
    ("short", "own", "value", "plain"),
    [
        ("cpu", "cpu_millis", 0.25, 250),
        ("cpu_max", "cpu_max_millis", "2", 2000),
        ("memory", "memory_bytes", "64MiB", 2**26),
        ("memory_max", "memory_max_bytes", "1GiB", 2**30),
    ],
)
def test_short_keys_and_own_names(short: str, own: str, value: Any, plain: int) -> None:
    """A quantity is taken by its short key with a unit or by its own name as a number, but not by both."""
    by_short = parse_job({**SHORT, "resources": {short: value}})
    assert parse_job({**SHORT, "resources": {own: plain}}) == by_short
    found = problems({**SHORT, "resources": {short: value, own: plain}})
    assert [problem.path for problem in found] == [f"groups[0].tasks[0].resources.{own}"]
    assert found[0].found == f"both {short} and {own}"


def test_an_own_name_takes_no_units() -> None:
    """`memory_bytes` is bytes: a unit in it is a mistake, and so is a part of a byte."""
    assert paths({**SHORT, "resources": {"memory_bytes": "64MiB", "cpu_millis": 0.5}}) == [
        "groups[0].tasks[0].resources.memory_bytes",
        "groups[0].tasks[0].resources.cpu_millis",
    ]


def test_both_forms_at_once_are_refused() -> None:
    """The mistake names both."""
    found = problems({**LONG, "driver": "binary", "config": {}, "count": 2})
    assert found == [
        Problem("groups", "groups and driver, config, count", "either [[groups]], or driver and config at the top")
    ]


def test_neither_form_is_refused() -> None:
    """A job without work says how to write some."""
    assert paths({"name": "web"}) == ["groups"]
    assert paths({}) == ["groups", "name"]


@pytest.mark.parametrize(
    ("table", "path", "near"),
    [
        ({**SHORT, "cout": 3}, "cout", "count"),
        ({**SHORT, "resources": {"memry": 1}}, "groups[0].tasks[0].resources.memry", "memory"),
        ({**SHORT, "restart": {"attempt": 1}}, "groups[0].restart.attempt", "attempts"),
        ({**LONG, "prority": 3}, "prority", "priority"),
        ({"name": "a", "drvier": "binary"}, "drvier", "driver"),
        ({**SHORT, "type": "bach"}, "type", "batch"),
        ({**SHORT, "ports": {"http": "dynamc"}}, "groups[0].ports.http", "dynamic"),
        ({**SHORT, "update": {"start_first": "atuo"}}, "groups[0].update.start_first", None),
        ({**SHORT, "disconnect": {"keep": "orignal"}}, "groups[0].disconnect.keep", "original"),
        ({**SHORT, "constraints": ["os not-in linux"]}, "constraints[0]", "not_in"),
        ({**SHORT, "kill_signal": "TERM"}, "groups[0].tasks[0].kill_signal", "SIGTERM"),
    ],
)
def test_the_nearest_known_name_is_told(table: dict[str, Any], path: str, near: str | None) -> None:
    """A mistyped key or word is told with the one that was probably meant."""
    found = next(problem for problem in problems(table) if problem.path == path)
    assert found.nearest == near


def test_every_mistake_is_told_at_once() -> None:
    """Mistakes of type, of range, of names and of what goes together come in one answer, each once."""
    table = {
        "name": "We b",
        "cout": 3,
        "count": -1,
        "type": "bach",
        "driver": "binary",
        "ports": {"http": "dynamc", "admin": 80_800},
        "resources": {"cpu": "lots", "memory": "64Mi"},
        "constraints": ["os linux", "a version x"],
        "restart": {"attempts": -1, "delay": "2m"},
        "env": {"A": "${port.htp}", "B": 3},
        "config": {"args": ["${prot.http}"]},
        "affinities": [{"where": "x = y", "weight": 200}, 3],
        "groups": None,
    }
    del table["groups"]
    assert sorted(paths(table)) == [
        "affinities[0].weight",
        "affinities[1]",
        "constraints[0]",
        "constraints[1].value",
        "cout",
        "groups[0].count",
        "groups[0].ports.admin.host",
        "groups[0].ports.http",
        "groups[0].restart.attempts",
        "groups[0].restart.delay",
        "groups[0].tasks[0].config.args[0]",
        "groups[0].tasks[0].env.A",
        "groups[0].tasks[0].env.B",
        "groups[0].tasks[0].resources.cpu",
        "groups[0].tasks[0].resources.memory",
        "name",
        "type",
    ]


def test_a_mistake_says_what_was_found_and_what_would_be_right() -> None:
    """The path is that of the model, in the words that people write."""
    table = {**SHORT, "resources": {"memory": "64Mi"}}
    assert problems(table) == [
        Problem("groups[0].tasks[0].resources.memory", '"64Mi"', 'bytes or a size such as "64MiB" or "64MB"')
    ]


@pytest.mark.parametrize(
    ("where", "feature", "value"),
    [
        ("task", "checks", [{"type": "http", "port": "http"}]),
        ("task", "volumes", [{"name": "data", "path": "/data"}]),
        ("task", "secrets", [{"name": "db/password", "file": "password"}]),
        ("task", "lifecycle", {"hook": "before"}),
        ("task", "depends_on", ["db"]),
        ("task", "templates", [{"source": "x"}]),
        ("task", "isolation", "L2"),
        ("resources", "devices", [{"name": "gpu"}]),
        ("job", "periodic", {"cron": "30 3 * * *"}),
        ("job", "parameters", {"input": "required"}),
    ],
)
def test_what_comes_later_is_refused(where: str, feature: str, value: Any) -> None:
    """A feature of a later version is refused by name, whatever is written in it; leaving it empty is no use of it."""
    table = copy.deepcopy(LONG)
    task = table["groups"][0]["tasks"][0]
    place = {"job": table, "task": task, "resources": task.setdefault("resources", {})}[where]
    place[feature] = value
    path = {"job": "", "task": "groups[0].tasks[0].", "resources": "groups[0].tasks[0].resources."}[where] + feature
    (found,) = problems(table)
    assert found.path == path
    assert "not supported yet" in found.expected
    place[feature] = type(value)()
    if not isinstance(value, str):
        assert parse_job(table).name == "web"
    place[feature] = None
    assert parse_job(table).name == "web"


def test_a_policy_begins_with_what_the_jobs_type_has() -> None:
    """A table that names one thing leaves the rest as the job's type has it."""
    batch = parse_job({**SHORT, "type": "batch", "restart": {"attempts": 9}, "reschedule": {"delay": "1m"}}).groups[0]
    assert batch.restart == Restart(attempts=9, within="24h")
    assert batch.reschedule == Reschedule(attempts=1, delay="1m")
    service = parse_job({**SHORT, "restart": {"attempts": 9}, "reschedule": {"delay": "1m"}}).groups[0]
    assert service.restart == Restart(attempts=9, within="10m")
    assert service.reschedule == Reschedule(delay="1m")


def test_words_for_nothing() -> None:
    """Where there is no null, `unlimited` and `none` can be written."""
    group = parse_job({**SHORT, "type": "batch", "reschedule": {"attempts": "unlimited"}}).groups[0]
    assert group.reschedule == Reschedule(attempts=None)
    assert parse_job({**SHORT, "disconnect": {"stop_after": "none"}}).groups[0].disconnect == Disconnect()


def test_several_jobs() -> None:
    """`[[jobs]]` holds several, each in its own form; the paths of mistakes name the job."""
    assert [job.name for job in parse_jobs({"jobs": [SHORT, {**LONG, "name": "b"}]})] == ["web", "b"]
    assert parse_jobs(SHORT) == (parse_job(SHORT),)
    with pytest.raises(InvalidJob) as caught:
        parse_jobs({"jobs": [SHORT, {**SHORT, "count": -1}, 3], "name": "x"})
    assert [problem.path for problem in caught.value.problems] == [
        "jobs",
        "jobs[1].groups[0].count",
        "jobs[2]",
        "jobs[1].name",
    ]


@pytest.mark.parametrize("wrong", [[], {}, None, 3, "x"])
def test_jobs_is_a_list(wrong: object) -> None:
    """Anything but a list with a job in it is refused."""
    with pytest.raises(InvalidJob, match=r"written as \[\[jobs\]\]"):
        parse_jobs({"jobs": wrong})


def test_a_base_path_stands_before_every_path() -> None:
    """Where the table is within something larger is part of the path."""
    found = problems({**SHORT, "cout": 1, "count": -1, "resources": {"cpu": "x"}}, base_path="job")
    assert sorted(problem.path for problem in found) == [
        "job.cout",
        "job.groups[0].count",
        "job.groups[0].tasks[0].resources.cpu",
    ]


def test_unknown_keys_may_be_passed_over() -> None:
    """Between neighbouring versions, what is not known is not a mistake; what is wrong still is."""
    table = copy.deepcopy(to_json(FULL_JOB))
    table["new"] = {"x": 1}
    table["groups"][0]["new"] = 1
    table["groups"][0]["tasks"][0]["resources"]["new"] = None
    passed_over: list[Problem] = []
    assert parse_job(table, passed_over=passed_over) == FULL_JOB
    assert sorted(passed_over, key=str) == sorted(problems(table), key=str)
    assert len(passed_over) == 3
    assert [each.path for each in problems({**table, "priority": 0}, passed_over=[])] == ["priority"]


def test_a_table_of_unknown_keys_is_told_of_in_few_words() -> None:
    """However many keys are passed over, some are told."""
    passed_over: list[Problem] = []
    parse_job({**SHORT, **{f"new{number}": 1 for number in range(1000)}}, passed_over=passed_over)
    assert len(passed_over) == PASSED_OVER_MAX


def test_ports_of_the_wire_are_told_by_name() -> None:
    """A list of ports, as in JSON, has the paths of the table that people write."""
    table = {**SHORT, "ports": [{"name": "http", "host": "x"}, {"name": "db", "host": 0}, 3, {"host": 1}]}
    assert paths(table) == [
        "groups[0].ports.http.host",
        "groups[0].ports[2]",
        "groups[0].ports[3].name",
        "groups[0].ports.db.host",
    ]


@pytest.mark.costly
def test_a_job_of_ten_thousand_groups() -> None:
    """A job as large as it may be is read, and so is what the codec makes of it."""
    groups = [{**LONG["groups"][0], "name": f"g{index}"} for index in range(10_000)]
    job = parse_job({"name": "big", "groups": groups})
    assert len(job.groups) == 10_000
    assert parse_job(to_json(job)) == job


# -------------------------------------------------------------------------------------- every field wrong in every way


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(table: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a JSON value with another value at one place."""
    if not path:
        return value
    copied = dict(table) if isinstance(table, dict) else list(table)
    copied[path[0]] = changed(table[path[0]], path[1:], value)
    return copied


def is_told(found: Problem) -> bool:
    """Say whether a mistake has all its parts."""
    return bool(found.path and found.found and found.expected)


BRIEF = tomllib.loads(FULL)
WIRE = to_json(FULL_JOB)
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**70,
    int("9" * 400),
    1e300,
    "",
    "x",
    "\0",
    "\ud800",
    "${x}",
    [],
    [None],
    [[]],
    {},
    {"x": None},
    float("inf"),
]


@pytest.mark.parametrize("table", [BRIEF, WIRE, {**SHORT, "count": 1}], ids=["brief", "wire", "short"])
@pytest.mark.costly
def test_every_field_wrong_in_every_way(table: dict[str, Any]) -> None:
    """Whatever stands in a field, it is right, or it is a mistake that is told with its path; nothing else happens."""
    wrong = 0
    for path in places(table):
        for value in WRONG:
            try:
                parse_job(changed(table, path, value))
            except InvalidJob as error:
                wrong += 1
                assert all(is_told(problem) for problem in error.problems)  # noqa: PT017 - both ends are right
    assert wrong > 50


@given(data=st.data())
def test_any_json_anywhere(data: st.DataObject) -> None:
    """Any JSON value at any places of a job makes a job or an InvalidJob, and the job survives the wire."""
    table = data.draw(st.sampled_from([BRIEF, WIRE, SHORT]))
    for _ in range(data.draw(st.integers(1, 3))):
        table = changed(table, data.draw(st.sampled_from(list(places(table)))), data.draw(JSON_VALUES))
    try:
        job = parse_job(table)
    except InvalidJob as error:
        assert all(is_told(problem) for problem in error.problems)  # noqa: PT017 - both ends are right
    else:
        assert parse_job(to_json(job)) == job


@given(st.dictionaries(st.sampled_from([*BRIEF, *SHORT, *BRIEF["groups"][0], "x", "jobs"]), JSON_VALUES))
def test_any_table(table: dict[str, Any]) -> None:
    """Any table at all makes jobs or an InvalidJob."""
    try:
        parse_jobs(table)
    except InvalidJob as error:
        assert all(is_told(problem) for problem in error.problems)  # noqa: PT017 - both ends are right


def test_a_stand_in_makes_no_mistakes_of_its_own() -> None:
    """What stands in for a wrong value is not told to be wrong as well."""
    table = {**SHORT, "name": 3, "priority": "high", "ports": {"a": {"host": "x"}}, "constraints": [3, "os = linux"]}
    assert paths(table) == ["name", "priority", "constraints[0]", "groups[0].ports.a.host"]


def test_a_job_made_in_python_is_checked_whole() -> None:
    """Wrong types in a value that was made in Python are found on the way through its JSON."""
    job = evolve(FULL_JOB, priority="high", meta={"a": 1, "owner": "me"})  # type: ignore[arg-type,dict-item]
    assert paths(to_json(job)) == ["priority", "meta.a"]
