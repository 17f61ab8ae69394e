from __future__ import annotations

from attrs import evolve
from hypothesis import given

from khonsu.core.diff import diff_jobs, same_spec
from khonsu.core.job import Group, Job, Port, Resources, Task
from tests.effort import examples
from tests.strategies import right_jobs

JOB = Job.single(
    "web", {"command": "x", "args": ["a"], "tasks": [{"x": 1}]}, driver="binary", ports={"http": "dynamic", "db": 5432}
)
GROUP = JOB.groups[0]


def changes(before: Job | None, after: Job | None) -> list[tuple[str, object, object]]:
    """Return what differs, as tuples."""
    return [(change.path, change.before, change.after) for change in diff_jobs(before, after)]


def test_fields_of_every_level() -> None:
    """A change is told with its path, before and after, in the units of the model."""
    task = Task("web", {"command": "y", "args": ["a", "b"], "tasks": [{"x": 2}]}, driver="binary", env={"A": "b"},
                resources=Resources(memory="256MiB"))  # fmt: skip
    after = evolve(JOB, priority=60, groups=[evolve(GROUP, count=3, tasks=[task])])
    assert changes(JOB, after) == [
        ("groups[main].tasks[web].config.command", "x", "y"),
        ("groups[main].tasks[web].config.args", ["a"], ["a", "b"]),
        ("groups[main].tasks[web].config.tasks", [{"x": 1}], [{"x": 2}]),
        ("groups[main].tasks[web].resources.memory_bytes", 2**27, 2**28),
        ("groups[main].tasks[web].env.A", None, "b"),
        ("groups[main].count", 1, 3),
        ("priority", 50, 60),
    ]


def test_groups_and_ports_are_told_by_name() -> None:
    """A new group in front of another is one new group, and not two changed ones."""
    new = Group("first", tasks=[Task("t", {"a": 1}, driver="oci")], count=2)
    after = evolve(JOB, groups=[new, evolve(GROUP, ports=[Port("db", 5433), Port("admin")])])
    assert changes(JOB, after) == [
        ("groups[main].ports[db].host", 5432, 5433),
        ("groups[main].ports[http].name", "http", None),
        ("groups[main].ports[admin].name", None, "admin"),
        ("groups[first].name", None, "first"),
        ("groups[first].tasks[t].name", None, "t"),
        ("groups[first].tasks[t].config.a", None, 1),
        ("groups[first].tasks[t].driver", None, "oci"),
        ("groups[first].count", None, 2),
    ]


def test_a_new_job_and_a_job_that_is_gone() -> None:
    """Of a whole job, what is not as it is by default is told."""
    job = Job.single("web", {"command": "x"}, driver="binary", count=2)
    told = [
        ("name", "web"),
        ("groups[main].name", "main"),
        ("groups[main].tasks[web].name", "web"),
        ("groups[main].tasks[web].config.command", "x"),
        ("groups[main].tasks[web].driver", "binary"),
        ("groups[main].count", 2),
    ]
    assert changes(None, job) == [(path, None, value) for path, value in told]
    assert changes(job, None) == [(path, value, None) for path, value in told]
    assert changes(None, None) == []


@examples(20)
@given(right_jobs(), right_jobs())
def test_a_diff_is_empty_where_jobs_ask_for_the_same(one: Job, other: Job) -> None:
    """A job has no differences to itself; two jobs have some unless they ask for the same, the same in reverse."""
    assert diff_jobs(one, one) == ()
    there, back = diff_jobs(one, other), diff_jobs(other, one)
    assert (there == ()) == same_spec(one, other)
    assert {(each.path, each.before, each.after) for each in map(_frozen, there)} == {
        (each.path, each.after, each.before) for each in map(_frozen, back)
    }


def _frozen(change):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return evolve(change, before=repr(change.before), after=repr(change.after))


def test_the_order_of_ports_does_not_matter() -> None:
    """Ports are a table: its order asks for nothing else, while that of groups and tasks is kept."""
    turned = evolve(JOB, groups=[evolve(GROUP, ports=GROUP.ports[::-1])])
    assert turned != JOB
    assert same_spec(JOB, turned)
    assert not same_spec(JOB, evolve(JOB, priority=51))
