from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core import codec
from khonsu.core.ids import AllocationId, NodeId
from khonsu.core.job import Job, Logs, Resources, Restart, Task, Update
from khonsu.core.records import Allocation, Node, NodeResources, PortAssignment, TaskStatus, Time
from khonsu.core.revision import Revision
from khonsu.core.secret import Secret
from khonsu.core.states import Desired
from khonsu.errors import InvalidRequest
from tests.effort import examples
from tests.strategies import JSON_VALUES, instances, value_classes

TASK = {"name": "web", "config": {"command": "x"}, "driver": "binary"}


@pytest.mark.parametrize("cls", value_classes(), ids=lambda cls: cls.__name__)
@examples(8)
@given(data=st.data())
def test_every_value_survives_the_round_trip(cls: type, data: st.DataObject) -> None:
    """A value of any class of the model is the same after it was text."""
    value = data.draw(instances(cls))
    assert codec.from_json(cls, codec.loads(codec.dumps(value))) == value


def test_every_module_of_values_is_covered() -> None:
    """The classes are found where they are: a sample of each module is among them."""
    names = {cls.__name__ for cls in value_classes()}
    assert {"Job", "Task", "Constraint", "Allocation", "SyncResponse", "JobResult", "Event"} <= names
    assert len(names) > 50


def test_a_value_has_every_key() -> None:
    """What is absent is null, never missing, times are RFC 3339 and ids and enums are text."""
    status = TaskStatus(name="web", attempt=2, exit_code=0, started_at=Time(1_700_000_000.25))
    assert codec.to_json(status) == {
        "name": "web",
        "status": "pending",
        "attempt": 2,
        "exit_code": 0,
        "signal": None,
        "out_of_memory": False,
        "pid": None,
        "started_at": "2023-11-14T22:13:20.250000Z",
        "finished_at": None,
        "message": "",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Revision(3, 41), "3.41"),
        (AllocationId("abc"), "abc"),
        (Desired.STOP, "stop"),
        ((1, 2), [1, 2]),
        ([Revision(1, 2)], ["1.2"]),
        ({"a": Desired.RUN}, {"a": "run"}),
        (None, None),
    ],
)
def test_small_values_have_a_json_form(value: object, expected: object) -> None:
    """Revisions, ids, enums and collections of them are written as plain JSON values of plain types."""
    found = codec.to_json(value)
    assert found == expected
    assert type(found) is type(expected)
    assert json.dumps(found) == json.dumps(expected)


def test_cores_are_not_converted_twice() -> None:
    """The JSON of resources holds thousandths of a core, and reading them does not take them for cores."""
    resources = Resources(cpu=0.25, cpu_max=2)
    assert codec.to_json(resources)["cpu_millis"] == 250
    assert codec.from_json(Resources, codec.to_json(resources)) == resources
    assert codec.from_json(Resources, {}) == Resources()


@pytest.mark.parametrize("start_first", ["auto", True, False])
def test_start_first_is_a_word_or_a_boolean(start_first: Any) -> None:
    """A union of a literal and a boolean keeps which of them it was."""
    update = Update(start_first=start_first)
    assert codec.from_json(Update, codec.to_json(update)) == update
    assert codec.to_json(update)["start_first"] is start_first


def test_unknown_keys_are_ignored_and_missing_ones_have_defaults() -> None:
    """A neighbouring version may say more or less."""
    task = codec.from_json(Task, {**TASK, "new_in_a_later_version": {"x": 1}})
    assert task == Task("web", {"command": "x"}, driver="binary")


def test_a_json_field_passes_through_as_a_copy() -> None:
    """A config is any JSON value; what is written shares nothing with the value, and the model keeps no tuples."""
    task = Task("web", {"args": ("a", "b"), "deep": {"x": [1, {"y": None}]}}, driver="binary")
    written = codec.to_json(task)
    assert written["config"] == {"args": ["a", "b"], "deep": {"x": [1, {"y": None}]}}
    written["config"]["deep"]["x"].append("changed")
    assert task.config["deep"] == {"x": [1, {"y": None}]}
    assert codec.from_json(Task, codec.to_json(task)) == task


def test_types_are_not_guessed() -> None:
    """Every wrong value is told with its path, what was found and what would be right."""
    node = Node(
        id=NodeId("n"), name="home", resources=NodeResources(cpu_millis=1, memory_bytes=2, disk_bytes=3),
        joined_at=Time(0), status_at=Time(0),
    )  # fmt: skip
    wrong = {
        **codec.to_json(node),
        "name": None,
        "status": "asleep",
        "labels": {"a": 1},
        "resources": {"cpu_millis": "5", "memory_bytes": True, "disk_bytes": 1.5},
        "joined_at": "yesterday",
        "drivers": [{"healthy": 1}],
    }
    with pytest.raises(InvalidRequest) as caught:
        codec.from_json(Node, wrong)
    assert caught.value.message.splitlines() == [
        "this is no Node:",
        "  name: found null, expected text",
        '  status: found "asleep", expected one of ready, down',
        "  labels.a: found 1, expected text",
        '  resources.cpu_millis: found "5", expected a whole number',
        "  resources.memory_bytes: found true, expected a whole number",
        "  resources.disk_bytes: found 1.5, expected a whole number",
        "  drivers[0].healthy: found 1, expected true or false",
        "  drivers[0].name: found nothing, expected text",
        '  joined_at: found "yesterday", expected a time such as 2026-01-31T12:00:00.000000Z',
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"])
def test_a_time_that_has_no_text_is_refused(wrong: str) -> None:
    """What is read can be written again: a time that is of no year in UTC would stop whoever keeps or shows it."""
    with pytest.raises(InvalidRequest, match="expected a time"):
        codec.from_json(TaskStatus, {"name": "web", "state": "running", "started_at": wrong})


@pytest.mark.parametrize("wrong", [None, 3, "text", [], [1], True])
@pytest.mark.parametrize("cls", [Update, Restart, Job, Task, Allocation])
def test_a_table_is_a_table(cls: type, wrong: object) -> None:
    """Anything but a table is refused, also for classes whose fields all have defaults."""
    with pytest.raises(InvalidRequest, match="expected a table"):
        codec.from_json(cls, wrong)


@pytest.mark.parametrize("wrong", ["abc", {"a": 1}, 1, None])
def test_a_list_is_a_list(wrong: object) -> None:
    """A text is not taken for a list of letters, nor a table for the list of its keys."""
    with pytest.raises(InvalidRequest, match="expected a list"):
        codec.from_json(tuple[str, ...], wrong)


@given(cls=st.sampled_from(value_classes()), data=JSON_VALUES)
def test_wrong_input_raises_one_error_only(cls: type, data: object) -> None:
    """Whatever JSON is given, it becomes a value or an InvalidRequest."""
    try:
        codec.from_json(cls, data)
    except InvalidRequest as error:
        assert "found" in error.message  # noqa: PT017 - both ends are right


def test_a_part_that_only_the_model_refuses_is_named() -> None:
    """A number of the right type that can be no size is told with its path."""
    with pytest.raises(InvalidRequest, match=r"  file_size_bytes: found -1, expected a whole number .*negative"):
        codec.from_json(Logs, {"file_size_bytes": -1})


@given(data=st.data())
def test_a_value_with_one_wrong_part_names_it(data: st.DataObject) -> None:
    """Any key of a valid value, replaced by any JSON value, gives a value or an error that names the key."""
    cls = data.draw(st.sampled_from(value_classes()))
    written = codec.to_json(data.draw(instances(cls)))
    key = data.draw(st.sampled_from(sorted(written)))
    try:
        codec.from_json(cls, {**written, key: data.draw(JSON_VALUES)})
    except InvalidRequest as error:
        assert f"  {key}" in error.message  # noqa: PT017 - both ends are right


def test_negative_durations_are_refused_with_their_path() -> None:
    """What a converter of the model complains about is told with its path."""
    with pytest.raises(InvalidRequest, match=r"  delay_seconds: found -1.0, expected a number .*negative"):
        codec.from_json(Restart, {"delay_seconds": -1.0})


def test_a_secret_is_not_written() -> None:
    """A secret has no JSON form, alone or inside of free JSON."""
    with pytest.raises(TypeError, match="Secret has no JSON form"):
        codec.dumps(Secret("hidden"))
    with pytest.raises(TypeError, match="Secret has no JSON form"):
        codec.dumps({"token": Secret("hidden")})
    with pytest.raises(TypeError, match="Secret has no JSON form"):
        Task("web", {"password": Secret("hidden")}, driver="binary")


def test_numbers_without_end_are_not_json() -> None:
    """Infinity is refused in both directions."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.dumps(math.inf)
    with pytest.raises(InvalidRequest, match="Infinity is not JSON"):
        codec.loads("[Infinity]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"a": 1} x', "not JSON"),
        ("NaN", "NaN is not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        ('"\\ud800"', "not UTF-8"),
        ("[" * 100_000, "nested too deep"),
        ("1" * 5000, "not JSON"),
    ],
)
def test_text_that_is_not_json_is_refused(text: str | bytes, message: str) -> None:
    """Cut, foreign, half-encoded, endless and bottomless text is refused with what is wrong with it."""
    with pytest.raises(InvalidRequest, match=message):
        codec.loads(text)


def test_characters_outside_the_basic_plane_are_read() -> None:
    """A pair of surrogates is one character."""
    assert codec.loads('"\\ud83c\\udf19"') == "🌙"
    assert codec.loads('"🌙"'.encode()) == "🌙"


def test_free_json_has_a_depth() -> None:
    """A config that is nested too deep is refused, and not found out by the stack."""
    deep: Any = None
    for _ in range(codec.JSON_DEPTH_MAX + 1):
        deep = [deep]
    with pytest.raises(InvalidRequest, match=r"config\.x: .*expected JSON of at most 64 levels"):
        codec.from_json(Task, {**TASK, "config": {"x": deep}})


def test_ports_of_an_allocation_are_read_as_a_tuple() -> None:
    """A list of values is a tuple of values."""
    ports = codec.from_json(tuple[PortAssignment, ...], [{"name": "http", "host": 1, "task": 2}])
    assert ports == (PortAssignment(name="http", host=1, task=2),)


def test_importing_the_codec_loads_neither_cattrs_nor_numpy() -> None:
    """The codec costs next to nothing until it is used, and numpy is never needed for it."""
    code = (
        "import sys, khonsu.core.codec as codec; print('cattrs' in sys.modules, end=' '); "
        "codec.to_json({}); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
