"""The docs run: Python blocks are executed, job files are loaded, commands exist, and nothing public is left out.

Blocks share a namespace per page and run in an empty folder. `<!--- skip: next -->` before a block leaves it out; it is
for what needs a second machine or never ends. Bash blocks are not run: each `khonsu` line must name a command and
options that exist, each `make` line a target.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click
import pytest
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

import khonsu
import khonsu.cli
import khonsu.errors
from khonsu.core import states

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum

    from sybil import Example

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def evaluate_toml(example: Example) -> None:
    """Parse a block, and load it as a job file if it looks like one."""
    values = tomllib.loads(example.parsed)
    if "jobs" in values or ("name" in values and ("driver" in values or "groups" in values)):
        path = Path("job.toml")
        path.write_text(example.parsed, encoding="utf-8")
        khonsu.load_jobs(path)


def evaluate_bash(example: Example) -> None:
    """Check the commands of a block that are ours."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(example.parsed):
        if words[0] == "make":
            unknown = {word for word in words[1:] if not word.startswith("-") and "=" not in word} - targets
            assert not unknown, f"make has no target {unknown}"
        elif words[0] == "khonsu":
            check_command(words[1:])


def commands(block: str) -> Iterator[list[str]]:
    """Split a block into commands of words, leaving out prompts, variables, comments, redirections and pipes."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words = list(lexer)
        while words:
            end = next((index for index, word in enumerate(words) if set(word) <= set("|&;<>")), len(words))
            part = words[:end]
            while part and re.fullmatch(r"[A-Z_]+=.*", part[0]):
                del part[0]
            if part:
                yield part
            words = words[end + 1 :]


def check_command(words: list[str]) -> None:
    """Walk down the tree of commands along some words; every verb and option must be known where it stands."""
    command: click.Command = khonsu.cli.main
    context = click.Context(command, info_name="khonsu")
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        if word.startswith("-") and len(word) > 1:
            name, given, _ = word.partition("=")
            option = find_option(context, name)
            assert option is not None, f"{context.command_path} has no option {name}"
            if not given and not option.is_flag and not option.count:
                next(rest)
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found is not None, f"{context.command_path} has no command {word!r}"
            command = found
            context = click.Context(command, parent=context, info_name=word)


def find_option(context: click.Context, name: str) -> click.Option | None:
    """Return the option of a command that has this name."""
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option) and name in (*parameter.opts, *parameter.secondary_opts):
            return parameter
    return None


SYBIL = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser(language="toml", evaluator=evaluate_toml),
        CodeBlockParser(language="bash", evaluator=evaluate_bash),
        SkipParser(),
    ]
)


def page_name(page: Path) -> str:
    """Name a page by its path in the repository."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a page shows works as it stands."""
    monkeypatch.chdir(tmp_path)
    # classes of the page look for their annotations in the module that they belong to
    module = ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    document = SYBIL.parse(page)
    document.namespace = vars(module)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository names one that is there."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_index() -> None:
    """The index lists every page."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if page.name != "index.md"]
    assert [page for page in sorted(pages) if f"]({page})" not in index] == []


# Everything below must be named in the docs. To extend it, add a line to `documented_names`.


def documented_names() -> dict[str, list[str]]:
    """Return what the docs must name, by kind."""
    return {
        "public name": list(khonsu.__all__),
        "error": sorted(error.__name__ for error in error_classes(khonsu.errors.KhonsuError)),
        "error code": sorted({error.code for error in error_classes(khonsu.errors.KhonsuError)}),
        "state": sorted({str(state.value) for machine in state_enums() for state in machine}),
        "command": sorted(command_names(khonsu.cli.main)),
        "environment variable": sorted(environment_variables()),
    }


def error_classes(base: type[khonsu.errors.KhonsuError]) -> Iterator[type[khonsu.errors.KhonsuError]]:
    """Walk the tree of errors."""
    yield base
    for child in base.__subclasses__():
        yield from error_classes(child)


def state_enums() -> Iterator[type[Enum]]:
    """Find the enumerations of states."""
    for name, thing in vars(states).items():
        if isinstance(thing, type) and name.endswith(("Status", "State", "Desired", "Eligibility")):
            yield thing


def command_names(command: click.Command, path: str = "khonsu") -> Iterator[str]:
    """Walk the tree of commands, leaving out what is hidden."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                yield from command_names(child, f"{path} {name}")


def environment_variables() -> set[str]:
    """Find the variables that the source reads or sets."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    return set(re.findall(r"\"(KHONSU_[A-Z_]*[A-Z])\"", source))


@pytest.mark.parametrize("kind", ["public name", "error", "error code", "state", "command", "environment variable"])
def test_the_docs_name_everything(kind: str) -> None:
    """No public name, error, state, command or variable is left out of the docs."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in documented_names()[kind] if not re.search(rf"\b{re.escape(name)}\b", text)]
    assert missing == []
