"""The library's own source, parsed, for the tests that read it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "khonsu"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@frozen
class Module:
    """One parsed file; `place` is its path inside the package or the repository, as in "core/units.py"."""

    place: str
    text: str = field(repr=False)
    tree: ast.Module = field(repr=False)

    @property
    def lines(self) -> int:
        """The number of lines of the file."""
        return len(self.text.splitlines())

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones too."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def imports(self) -> tuple[tuple[str, int], ...]:
        """The dotted name and line of every absolute import, wherever it stands."""
        return imports_of(self.tree)


@cache
def imports_of(tree: ast.Module) -> tuple[tuple[str, int], ...]:
    """Return the name and line of every absolute import of a file; many tests ask for the same ones."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.append((node.module, node.lineno))
    return tuple(found)


def parse(folder: Path, base: Path) -> tuple[Module, ...]:
    """Parse every Python file below a folder; places are relative to `base`."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Module(path.relative_to(base).as_posix(), text, ast.parse(text, str(path))))
    return tuple(found)


@cache
def library() -> tuple[Module, ...]:
    """The modules of the package."""
    return parse(PACKAGE, PACKAGE)


@cache
def suite() -> tuple[Module, ...]:
    """The modules below `tests/`."""
    return parse(ROOT / "tests", ROOT)


def body_lines(function: Function) -> int:
    """Return how many lines the body of a function takes, without its docstring and the functions inside it."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return lines_of(*body) - sum(lines_of(inner) for inner in inner_functions(body)) if body else 0


def inner_functions(nodes: Iterable[ast.AST]) -> Iterator[Function]:
    """Find the outermost functions below some nodes."""
    for node in nodes:
        if isinstance(node, Function):
            yield node
        else:
            yield from inner_functions(ast.iter_child_nodes(node))


def lines_of(*statements: ast.stmt) -> int:
    """Return the number of lines from the first statement to the end of the last."""
    return (statements[-1].end_lineno or statements[-1].lineno) - statements[0].lineno + 1
