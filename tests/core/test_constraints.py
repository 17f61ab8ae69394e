from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.conditions import OPERATORS
from khonsu.core.constraints import REGEX_TEXT_MAX, compile_regex, matches, parse_version, problem


@pytest.mark.parametrize(
    ("operator", "wanted", "present", "expected"),
    [
        ("=", "linux", "linux", True),
        ("=", "linux", "Linux", False),
        ("=", "1.10", "1.1", False),
        ("=", "linux", None, False),
        ("!=", "hdd", "ssd", True),
        ("!=", "hdd", "hdd", False),
        ("!=", "hdd", None, True),
        ("<", "10", "9", True),
        ("<", "10", "9.5", True),
        ("<", "9", "10", False),
        (">=", "1e3", "2000", True),
        (">=", "6.9", "6.10.3", True),
        ("<", "6.9.0", "6.10.3", False),
        (">", "1.2", "1.2-rc1", False),
        ("<", "2024-06-01", "2024-05-31", True),
        ("<", "b", "a", True),
        ("<", "b", None, False),
        ("<=", "nan", "5", True),  # not a number: compared as text
        ("in", "a, b,c", "b", True),
        ("in", "a, b,c", "d", False),
        ("in", "a,b", None, False),
        ("not_in", "a,b", "c", True),
        ("not_in", "a,b", "a", False),
        ("not_in", "a,b", None, True),
        ("regex", "^node-[0-9]+$", "node-17", True),
        ("regex", "^node-[0-9]+$", "node-x", False),
        ("regex", "(?i)EU", "rack-eu-1", True),
        ("regex", "a", None, False),
        ("regex", "a", "a" * (REGEX_TEXT_MAX + 1), False),
        ("version", ">= 1.2, < 2", "1.10.0", True),
        ("version", ">= 1.2, < 2", "2.0", False),
        ("version", "1.2", "v1.2.0", True),
        ("version", "= 6.1", "6.1.0-18-amd64", True),
        ("version", "< 1.2", "1.2-rc1", True),
        ("version", "!= 3", "4", True),
        ("version", ">= 1", "unknown", False),
        ("version", ">= 1", None, False),
        ("is_set", "", "", True),
        ("is_set", "", None, False),
        ("is_not_set", "", None, True),
        ("is_not_set", "", "x", False),
        ("distinct", "", "x", True),
        ("distinct", "", None, False),
    ],
)
def test_operators_mean_what_the_table_says(operator: str, wanted: str, present: str | None, *, expected: bool) -> None:
    """Each operator on values, lists, versions, and on no value."""
    assert expected == matches(operator, wanted, present)


def test_every_operator_of_the_model_has_a_meaning() -> None:
    """No operator that a job may use is unknown here."""
    assert dict.fromkeys(OPERATORS) == {name: problem(name, "1") for name in OPERATORS}


def test_an_unknown_operator_is_refused() -> None:
    """What is not in the table is an error."""
    assert problem("~", "1") == "'~' is not an operator"


@pytest.mark.parametrize(
    "earlier_and_later", [("1.2", "1.10"), ("1.2-alpha2", "1.2-beta1"), ("2.0.0-rc.1", "2"), ("1.0.dev1", "1.0a1")]
)
def test_versions_are_ordered(earlier_and_later: tuple[str, str]) -> None:
    """Numbers compare as numbers, and what comes before a release is before it."""
    earlier, later = (parse_version(text) for text in earlier_and_later)
    assert earlier is not None
    assert later is not None
    assert earlier < later


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5), st.integers(0, 3))
def test_zeros_at_the_end_of_a_version_do_not_count(numbers: list[int], zeros: int) -> None:
    """1.2 and 1.2.0 are the same version."""
    text = ".".join(map(str, numbers))
    assert parse_version(text) == parse_version("v" + text + ".0" * zeros)


@given(st.text(max_size=30), st.sampled_from(OPERATORS), st.text(max_size=30) | st.none())
def test_no_text_breaks_an_operator(wanted: str, operator: str, present: str | None) -> None:
    """Either the value is refused with words, or every attribute has an answer."""
    if problem(operator, wanted) is None:
        assert matches(operator, wanted, present) in (True, False)


@pytest.mark.parametrize("wanted", [">= 1.2.x", "", "latest", "> 1, <"])
def test_bounds_that_are_no_versions_are_refused(wanted: str) -> None:
    """The message shows the bound and an example."""
    assert 'is not a bound on a version, such as ">= 1.2"' in (problem("version", wanted) or "")


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a+)+b", "repeats a group"),
        ("(?:a|a){5}", "repeats a group"),
        ("(a)\\1", "refers back"),
        ("(?=a)b", "is not allowed"),
        ("(?P<n>a)(?P=n)", "is not allowed"),
        ("a*b*c*d*", "may take too long"),
        ("^" + "a?" * 30 + "a" * 30, "may take too long"),
        ("[[a]]", "write a \\"),
        ("[a", "a [ is not closed"),
        ("a)", "is not a pattern"),
        ("*a", "is not a pattern"),
        ("a{4294967296}", "is not a pattern"),
    ],
)
def test_patterns_that_may_take_long_are_refused(pattern: str, words: str) -> None:
    """A pattern of a job cannot hold up the control plane."""
    assert words in (problem("regex", pattern) or "")


@pytest.mark.parametrize(
    "pattern", ["", "^v?[0-9]+\\.[0-9]+$", "eu|us", "^(eu|us)-[a-z]{2}-\\d+$", "a{3}", "[^]x]\\)", "^\\[.*\\]$", "(a)?"]
)
def test_plain_patterns_are_taken(pattern: str) -> None:
    """What people write for names and versions works as it does in Python."""
    assert compile_regex(pattern) == re.compile(pattern)
