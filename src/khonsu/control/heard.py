"""What was heard of the logs of a copy, to go on behind it when its agent is asked again.

Lines have no number, and several that were written at once have the same time. So it is counted how many of the
latest time were heard of each output, and as many are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from khonsu.core.codec import from_json, loads
from khonsu.core.job import JSON
from khonsu.core.protocol import LogLine

TIME_SECONDS_MIN: Final = 1e-6
"""What the time of a line is told to."""

Output = tuple[str, str]


class Again:
    """What is passed over in one repetition."""

    def __init__(self, latest: dict[Output, tuple[float, int]]) -> None:
        """Begin with the latest time of each output, and how many lines of it were heard."""
        self._latest = latest

    def knows(self, line: LogLine) -> bool:
        """Return whether a line was heard before, and count it then."""
        at, left = self._latest.get((line.task, line.stream), (0.0, 0))
        if line.at != at:
            return line.at < at
        self._latest[line.task, line.stream] = (at, left - 1)
        return left > 0


class Heard:
    """The lines that were heard of a copy."""

    def __init__(self) -> None:
        """Begin with none."""
        self._latest: dict[Output, tuple[float, int]] = {}

    def note(self, line: LogLine) -> None:
        """Take note of a line."""
        output = (line.task, line.stream)
        at, count = self._latest.get(output, (0.0, 0))
        if line.at >= at:
            self._latest[output] = (line.at, count + 1 if line.at == at else 1)

    def again(self) -> Again:
        """Return what is to be passed over in lines that are asked for again."""
        return Again(dict(self._latest))

    def news(self) -> Callable[[bytes], bool]:
        """Return what says of each line of a repetition, as JSON, whether it is new, and takes note of it."""
        again = self.again()

        def is_new(text: bytes) -> bool:
            line = from_json(LogLine, loads(text))
            if again.knows(line):
                return False
            self.note(line)
            return True

        return is_new

    def onward(self, parameters: dict[str, JSON]) -> dict[str, JSON]:
        """Return the parameters of a request whose answer leaves nothing out that was not heard."""
        if not self._latest:
            return parameters
        earliest = min(at for at, _ in self._latest.values())
        return {**parameters, "tail": None, "since": earliest - TIME_SECONDS_MIN}
