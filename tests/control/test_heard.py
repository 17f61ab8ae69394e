"""Going on behind what was heard of logs."""

from __future__ import annotations

from khonsu.control.heard import Heard
from khonsu.core.ids import AllocationId
from khonsu.core.protocol import LogLine
from khonsu.core.records import Time


def line(text: str, at: float, stream: str = "stdout") -> LogLine:
    """Return a line of the only task."""
    return LogLine(allocation=AllocationId("a"), task="t", stream=stream, text=text, at=Time(at))


def test_lines_of_one_moment_are_counted() -> None:
    """Of lines that were written at once, those are passed over that were heard, and no more."""
    heard = Heard()
    told = [line("0", 5.0), line("1", 6.0), line("2", 6.0)]
    for one in told:
        heard.note(one)
    again = heard.again()
    new = [line("3", 6.0), line("4", 7.0)]
    assert [one for one in [*told, *new] if not again.knows(one)] == new


def test_each_output_has_a_latest_time_of_its_own() -> None:
    """A request goes back to the output that was heard of the longest ago."""
    heard = Heard()
    heard.note(line("out", 9.0))
    heard.note(line("err", 5.0, "stderr"))
    assert heard.onward({"since": None, "tail": 3}) == {"since": 5.0 - 1e-6, "tail": None}
    again = heard.again()
    late = line("late", 6.0, "stderr")
    assert [again.knows(one) for one in (line("err", 5.0, "stderr"), late, line("out", 9.0))] == [True, False, True]


def test_nothing_heard_changes_nothing() -> None:
    """The first request is the one that was made."""
    assert Heard().onward({"since": None, "tail": 3}) == {"since": None, "tail": 3}
