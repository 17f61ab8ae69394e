from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.job import Constraint, Job, Restart, Spread, Task
from khonsu.core.toml import FILE_BYTES_MAX, dumps_job, load_jobs, loads_jobs
from khonsu.errors import InvalidJob, NotFound
from tests.effort import examples
from tests.strategies import right_jobs

WEB = """
name = "web"
count = 3
driver = "binary"
ports = { http = "dynamic", admin = 8080 }
resources = { cpu = 0.25, memory = "64MiB" }
constraints = ["os = linux", "label.disk = ssd"]

[config]
command = "python3"
args = ["-m", "http.server", "${port.http}"]
"""

WITH_MUCH_META = "name = 'a'\nmeta = {" + ",".join(f"k{index} = ''" for index in range(20_000)) + "}\n"
META_TASK = "[[groups.tasks]]\nname='t'\ndriver='b'\nconfig={a='${meta.k1}'}\n"


def mistakes(text: str | bytes) -> list[tuple[str, str, str]]:
    """Return what is wrong with a job file."""
    with pytest.raises(InvalidJob) as caught:
        loads_jobs(text, file="job.toml")
    return [(problem.path, problem.found, problem.expected) for problem in caught.value.problems]


def test_a_job_file(tmp_path: Path) -> None:
    """A file with one job is one job, from its path or its text."""
    path = tmp_path / "web.toml"
    path.write_text(WEB, encoding="utf-8")
    (job,) = load_jobs(path)
    assert (job.name, job.groups[0].count, job.groups[0].tasks[0].resources.cpu_millis) == ("web", 3, 250)
    assert load_jobs(str(path)) == loads_jobs(WEB) == loads_jobs(WEB.encode()) == (job,)


def test_several_jobs_in_a_file() -> None:
    """`[[jobs]]` begins each of them."""
    text = '[[jobs]]\nname = "a"\ndriver = "binary"\nconfig = {}\n[[jobs]]\nname = "b"\ndriver = "oci"\nconfig = {}\n'
    assert [job.name for job in loads_jobs(text)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("name = \n", "job.toml:1:8", '"name ="'),
        ('name = "web"\n\ncount = 3 x\n', "job.toml:3:11", '"count = 3 x"'),
        ('name = "web', "job.toml:1:12", '"name = \\"web"'),
        ("[a]\n[a]\n", "job.toml:2:3", '"[a]"'),
        ("a = 1\na = 2\n", "job.toml:2:6", '"a = 2"'),
        ("x", "job.toml:1:2", '"x"'),
        (b'name = "\xff"\n', "job.toml:1", "the byte 0xff"),
        (b"a = 1\nb = '\xff'\n", "job.toml:2", "the byte 0xff"),
    ],
)
def test_what_is_no_toml(text: str | bytes, path: str, found: str) -> None:
    """A mistake in the syntax is told with file, line and column, and the line itself."""
    ((place, line, expected),) = mistakes(text)
    assert (place, line) == (path, found)
    assert expected


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 5000, "a = " + "1" * 5000, "a." * 3000 + "b = 1", "", "\0", "\ud800", "jobs = 3", "d = 1979-05-27"],
)
def test_strange_files(text: str) -> None:
    """Whatever is in a file, it is told what is wrong with it."""
    assert mistakes(text)


def test_values_that_json_does_not_have() -> None:
    """A date, a number without end or of more than 64 bits is no config."""
    text = WEB + "until = 1979-05-27\nratio = inf\nbits = 0x" + "f" * 17
    assert [path for path, *_ in mistakes(text)] == [
        f"groups[0].tasks[0].config.{key}" for key in ("until", "ratio", "bits")
    ]


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """A job file has at most one mebibyte, and no more of it is read."""
    assert loads_jobs(WEB + "#" * (FILE_BYTES_MAX - len(WEB)))
    ((_, found, expected),) = mistakes(WEB + "#" * FILE_BYTES_MAX)
    assert (found, expected) == ("more than 1048576 bytes", "at most 1048576 bytes (1 MiB)")
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidJob, match="at most 1048576 bytes"):
        load_jobs(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there is not found; a folder is no file."""
    with pytest.raises(NotFound, match="there is no job file"):
        load_jobs(tmp_path / "none.toml")
    with pytest.raises(InvalidJob, match="expected a file that can be read"):
        load_jobs(tmp_path)


@examples(25)
@given(right_jobs())
def test_a_job_is_read_back_from_what_is_written(job: Job) -> None:
    """The text of a job makes the same job."""
    assert loads_jobs(dumps_job(job)) == (job,)


@given(st.text() | st.text("[]{}=\"\n.a1 #'"))
def test_any_text_is_jobs_or_mistakes(text: str) -> None:
    """No text makes anything else happen."""
    try:
        loads_jobs(text)
    except InvalidJob as error:
        assert error.problems  # noqa: PT017 - both ends are right


def test_what_is_written_is_short() -> None:
    """A job is written as people would write it: the short form, units, and no defaults."""
    (job,) = loads_jobs(WEB)
    assert dumps_job(job) == (
        'name = "web"\n'
        'constraints = ["os = linux", "label.disk = ssd"]\n'
        "count = 3\n"
        'ports = { http = "dynamic", admin = 8080 }\n'
        'driver = "binary"\n'
        'resources = { cpu = 0.25, memory = "64MiB" }\n'
        "\n"
        "[config]\n"
        'command = "python3"\n'
        'args = ["-m", "http.server", "${port.http}"]\n'
    )


def test_what_is_written_is_exact() -> None:
    """Odd characters, blanks and quantities without a round form are kept."""
    job = Job.single(
        "web",
        {"a b": '"\\\n\x7f\t', "": [1.5, True, {"x": []}], "tables": [{"a": 1}, {"b": {"c": 2}}]},
        driver="binary",
        type="batch",
        constraints=[Constraint("a", "=", " b "), Constraint("c", "=", "\t")],
        spreads=[Spread("r", targets={"ä b": 3})],
        restart=Restart(within=0.0001, delay=0),
        disk=1537,
    )
    assert loads_jobs(dumps_job(job)) == (job,)


def test_a_null_cannot_be_written() -> None:
    """TOML has no null, and nothing is made up for it."""
    with pytest.raises(ValueError, match="TOML has no null"):
        dumps_job(Job.single("web", {"a": None}, driver="binary"))


def test_the_long_form_is_written_where_there_is_no_short_one() -> None:
    """What group and task share with the job cannot stand at the top."""
    job = Job.single("web", {"a": 1}, driver="binary")
    task = Task("web", {"a": 1}, driver="binary", meta={"x": "y"})
    changed = Job("web", groups=[type(job.groups[0])("main", tasks=[task])])
    assert "[[groups.tasks]]" in dumps_job(changed)
    assert loads_jobs(dumps_job(changed)) == (changed,)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"k{index} = 1\n" for index in range(70_000)),
        "[[groups]]\n" * 80_000,
        WEB + "x = [" + '"${a}", ' * 110_000 + "]",
        WEB + "[env]\n" + "".join(f'k{index} = "${{prt.x}}"\n' for index in range(40_000)),
        WEB + "[meta]\n" + "".join(f'k{index} = ""\n' for index in range(60_000)),
        "ports = {" + ",".join(f"a{index} = 1" for index in range(60_000)) + "}" + WEB.replace("ports", "#"),
        "constraints = [" + '"a notin b",' * 70_000 + "]\n" + WEB.replace("constraints", "#"),
        WITH_MUCH_META + "".join(f"[[groups]]\nname='g{index}'\n{META_TASK}" for index in range(8_000)),
    ],
)  # fmt: skip
@pytest.mark.costly
def test_a_file_that_is_nothing_but_mistakes_takes_no_longer(text: str) -> None:
    """A mebibyte of anything is read long before the test's time is up; of very many mistakes the first are told."""
    assert len(text) <= FILE_BYTES_MAX
    try:
        loads_jobs(text)
    except InvalidJob as error:
        assert len(error.problems) <= 1001  # noqa: PT017 - both ends are right
