"""Comments and docstrings are finished."""

from __future__ import annotations

import ast
import re

from tests.style.source import ROOT, suite

PLACES = ("src", "tests", "docs", "scripts", "examples", "Makefile", "README.md", "CONTRIBUTING.md", "pyproject.toml")
SUFFIXES = {".py", ".md", ".toml", ".sh", ".html", ".css", ".js", ""}
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")


def test_nothing_is_left_to_do() -> None:
    """Work that is left is an issue, not a comment."""
    files = [path for place in PLACES for path in ((ROOT / place), *(ROOT / place).rglob("*")) if path.is_file()]
    left = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in files
        if path.suffix in SUFFIXES and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]
    assert left == []


def test_each_test_says_what_holds() -> None:
    """A test function has a docstring of one sentence."""
    silent = [
        f"{module.place}:{function.name}"
        for module in suite()
        for function in module.functions()
        if function.name.startswith("test_") and not is_a_sentence(ast.get_docstring(function))
    ]
    assert silent == []


def is_a_sentence(text: str | None) -> bool:
    """Say whether a docstring's first paragraph ends like a sentence."""
    return text is not None and text.split("\n\n", maxsplit=1)[0].rstrip().endswith((".", "?", "!"))
