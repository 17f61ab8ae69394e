"""Names: what they may be, and the nearest known one when somebody mistyped it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from khonsu.core.about import NAME, NAME_EXPECTED
from khonsu.core.mistakes import join, show
from khonsu.errors import Problem

LABEL_VALUE_MAX = 256
_CANDIDATES_MAX = 200


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a wrong one, or None if none is like it."""
    from difflib import get_close_matches

    lowered = {candidate.lower(): candidate for candidate in islice(known, _CANDIDATES_MAX)}
    found = get_close_matches(name.lower()[:100], lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def check_name(name: object, path: str) -> tuple[Problem, ...]:
    """Return what is wrong with the name of a job, group, task, port, node, pool, ..."""
    if isinstance(name, str) and NAME.fullmatch(name):
        return ()
    return (Problem(path, show(name), NAME_EXPECTED),)


def check_text(text: str, path: str) -> tuple[Problem, ...]:
    """Return whether a text holds what no variable, file name or database can."""
    if "\0" in text:
        return (Problem(path, show(text), "text without a NUL character"),)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return (Problem(path, show(text.encode(errors="replace").decode()), "text that has a UTF-8 form"),)
    return ()


def check_labels(labels: Mapping[str, object], path: str) -> tuple[Problem, ...]:
    """Return every mistake in the labels of a node."""
    problems: list[Problem] = []
    for key, value in labels.items():
        if not NAME.fullmatch(key):
            problems.append(Problem(join(path, key), f"the label {show(key)}", NAME_EXPECTED))
        if not isinstance(value, str) or len(value) > LABEL_VALUE_MAX or not value.isprintable():
            problems.append(Problem(join(path, key), show(value), f"at most {LABEL_VALUE_MAX} printable characters"))
    return tuple(problems)
