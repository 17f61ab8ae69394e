from __future__ import annotations

import pytest

from khonsu.core.names import check_labels, check_name, check_text, nearest


@pytest.mark.parametrize(
    ("name", "expected"),
    [("conut", "count"), ("Memory", "memory"), ("memry", "memory"), ("zzz", None), ("", None), ("m" * 10_000, None)],
)
def test_the_nearest_name(name: str, expected: str | None) -> None:
    """A mistyped name finds the one that it is most like, and a strange one finds none."""
    assert nearest(name, ["count", "memory", "cpu"]) == expected


@pytest.mark.parametrize(
    ("name", "right"), [("home", True), ("a.b-c_1", True), ("Home", False), ("", False), (3, False)]
)
def test_names(name: object, right: bool) -> None:
    """Names of jobs, groups, tasks, ports and nodes have one rule."""
    assert (check_name(name, "name") == ()) is right


@pytest.mark.parametrize(("text", "right"), [("ä🌙\n", True), ("a\0", False), ("\ud800", False), ("", True)])
def test_texts(text: str, right: bool) -> None:
    """A text holds what a variable and a database can hold, and the mistake itself can be printed."""
    problems = check_text(text, "p")
    assert (problems == ()) is right
    assert all(str(problem).encode() for problem in problems)


def test_labels() -> None:
    """A label's key is a name, and its value is short and can be printed."""
    assert check_labels({"rack": "a", "x": "", "y": "ä b"}, "labels") == ()
    wrong = {"Rack": "a", "x": "a\nb", "y": "a" * 257}
    assert [problem.path for problem in check_labels(wrong, "labels")] == ["labels.Rack", "labels.x", "labels.y"]
