from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.errors import Conflict, KhonsuError, NotFound
from khonsu.transports.wire import Lines, encode_last_line
from tests.effort import examples

PIECES = st.lists(st.sampled_from([b"{", b'{"problem":', b'{"problem":1}', b'"x"', b"\n", b"\n\n", b"\xff", b""]))


def through(chunks: list[bytes]) -> bytes:
    """Return what comes of a stream that arrived in these chunks."""
    lines = Lines()
    return b"".join([*(lines.take(chunk) for chunk in chunks), lines.end()])


@given(pieces=PIECES)
@examples(50)
def test_what_is_no_problem_passes(pieces: list[bytes]) -> None:
    """A stream of any bytes that ended well arrives whole, however it was cut into chunks."""
    assert through(pieces) == b"".join(pieces)


@pytest.mark.parametrize("before", [b"", b'{"text":"a"}\n', b'{"text":"ha', b'{"problem":{}}\n'])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_last_line_of_a_stream_that_failed_is_raised(before: bytes, size: int) -> None:
    """What came before a failure passes, and the failure is raised as it was."""
    sent = before + encode_last_line(NotFound("job", "wbe", nearest="web", hint="look again"))
    lines = Lines()
    passed = b"".join(lines.take(sent[start : start + size]) for start in range(0, len(sent), size))
    with pytest.raises(NotFound, match="did you mean web") as caught:
        lines.end()
    assert (passed, caught.value.nearest, caught.value.hint) == (before + b"\n", "web", "look again")


def test_a_problem_in_the_middle_is_data() -> None:
    """Only the last line says why a stream failed."""
    sent = encode_last_line(Conflict("no"))
    assert through([sent, b"more"]) == sent + b"more"


def test_a_line_that_is_whole_is_not_kept_back() -> None:
    """Each line passes as soon as it is there."""
    lines = Lines()
    assert [lines.take(data) for data in (b"1\n", b'{"text":1', b"}\n{", b'"a":1}\n')] == [
        b"1\n",
        b'{"text":1',
        b"}\n",
        b'{"a":1}\n',
    ]


def test_a_problem_of_a_newer_version_is_still_one() -> None:
    """An error that is not known is a plain one with its message."""
    sent = encode_last_line(KhonsuError("no")).replace(b'"error"', b'"brand-new"')
    lines = Lines()
    lines.take(sent)
    with pytest.raises(KhonsuError, match="no"):
        lines.end()
