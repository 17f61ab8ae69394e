from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.core.operations import OPERATIONS, QUERY_KINDS, Direction, Kind, Operation
from khonsu.errors import InvalidRequest
from khonsu.transports.routing import find_operation, has_content, held_seconds, join, split

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text not in (".", "..")
)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: NAMES,
    Kind.INTEGER: st.integers(-(10**17), 10**17),
    Kind.FLAG: st.booleans(),
    Kind.DURATION: st.integers(0, 10**9).map(lambda millis: millis / 1000),
    Kind.TIME: st.integers(0, 4 * 10**9).map(float),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Operation, dict[str, Any]]:
    """Draw an operation and a body for it."""
    operation = draw(st.sampled_from(sorted(OPERATIONS.values(), key=lambda each: each.name)))
    body = {name: draw(NAMES) for name in operation.path_parameters}
    if has_content(operation):
        return operation, {**draw(st.dictionaries(NAMES, JSON, max_size=3)), **body}
    for name in operation.query_parameters:
        if draw(st.booleans()):
            body[name] = draw(VALUES[QUERY_KINDS.get(name, Kind.TEXT)])
    return operation, body


@given(requests())
def test_a_body_survives_being_split_and_joined(request: tuple[Operation, dict[str, Any]]) -> None:
    """What is split into path, query and content is joined into the same body."""
    operation, body = request
    parts = split(operation, body)
    target = urlsplit(parts.target)
    templates = operation.path.split("/")
    segments = target.path.split("/")
    assert len(segments) == len(templates)
    path = {
        template[1:-1]: unquote(segment)
        for template, segment in zip(templates, segments, strict=True)
        if template[:1] == "{"
    }
    assert body == join(operation, path, parse_qsl(target.query, keep_blank_values=True), parts.content)


def test_a_sign_is_no_digit() -> None:
    """The longest whole number may be negative, too."""
    body = {"namespace": "a", "limit": -(10**17)}
    target = urlsplit(split(OPERATIONS["job.list"], body).target)
    assert join(OPERATIONS["job.list"], {"namespace": "a"}, parse_qsl(target.query), None) == body


def test_where_the_parts_go() -> None:
    """Reads have a query, writes a body, and what is null is not in a query."""
    read = split(OPERATIONS["job.list"], {"namespace": "a b", "after": "1.7", "wait": 90.0, "cursor": None, "limit": 5})
    assert (read.target, read.content) == ("/namespaces/a%20b/jobs?after=1.7&wait=90s&limit=5", None)
    write = split(OPERATIONS["job.scale"], {"namespace": "a", "name": "w/b", "count": 3, "group": None})
    assert (write.target, write.content) == ("/namespaces/a/jobs/w%2Fb/scale", {"count": 3, "group": None})
    assert split(OPERATIONS["node.undrain"], {"name": "x"}).content == {}
    assert split(OPERATIONS["node.remove"], {"name": "x"}).content is None
    assert split(OPERATIONS["job.logs"], {"namespace": "a", "name": "b", "since": 1.5, "follow": True}).target.endswith(
        "logs?since=1970-01-01T00%3A00%3A01.500000Z&follow=true"
    )


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("job.get", {"namespace": "a"}),
        ("job.get", {"namespace": "a", "name": ""}),
        ("job.get", {"namespace": "a", "name": ".."}),
        ("job.get", {"namespace": "a", "name": 5}),
        ("job.get", {"namespace": "a", "name": "\ud800"}),
        ("job.get", {"namespace": "a", "name": "b", "cursor": "c"}),
        ("job.list", {"namespace": "a", "limit": "5"}),
        ("job.list", {"namespace": "a", "limit": True}),
        ("job.list", {"namespace": "a", "cursor": "\udfff"}),
        ("job.list", {"namespace": "a", "wait": "30s"}),
        ("job.logs", {"namespace": "a", "name": "b", "follow": 1}),
        ("node.stream", {"node": "n", "id": "i", "other": 1}),
    ],
)
def test_what_cannot_be_sent(name: str, body: dict[str, Any]) -> None:
    """A body that does not fit its operation is refused before it is sent."""
    with pytest.raises(InvalidRequest):
        split(OPERATIONS[name], body)


def test_operations_are_found_by_direction() -> None:
    """A name and a direction find an operation, or say that there is none."""
    assert find_operation("job.get", Direction.CALL) is OPERATIONS["job.get"]
    with pytest.raises(InvalidRequest, match=r"job\.logs.* to call"):
        find_operation("job.logs", Direction.CALL)
    with pytest.raises(InvalidRequest, match=r"job\.got.* to stream"):
        find_operation("job.got", Direction.UP, Direction.DOWN)


@pytest.mark.parametrize(
    ("body", "seconds"), [({}, 0.0), ({"wait": 5}, 5.0), ({"hold_seconds": 2.5}, 2.5), ({"wait": "x"}, 0.0)]
)
def test_how_long_an_answer_is_held(body: dict[str, Any], seconds: float) -> None:
    """Watches and syncs are held on purpose."""
    assert held_seconds(body) == seconds
