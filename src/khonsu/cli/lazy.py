"""The tree of commands, whose help is known without loading what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click
from attrs import frozen

OWN = 125
"""The exit code of everything of Khonsu's own, where others are those of tasks."""

_JSON = "khonsu.json"
_EXIT_CODE = "khonsu.exit-code"


@frozen
class Verb:
    """A command by its name, where it is, and what it says of itself in lists."""

    name: str
    place: str
    """`MODULE:ATTRIBUTE`."""
    summary: str

    def load(self) -> click.Command:
        """Return the command, under this name."""
        module, _, attribute = self.place.partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found


@frozen
class Noun:
    """A group of commands."""

    name: str
    summary: str
    verbs: tuple[Verb, ...]


class Verbs(click.Group):
    """A group that loads a command when it is called or its own help is asked for."""

    def __init__(self, name: str, summary: str, verbs: Sequence[Verb]) -> None:
        """Know the commands by name."""
        super().__init__(name, help=summary, context_settings={"help_option_names": ["-h", "--help"]})
        self._verbs = {verb.name: verb for verb in verbs}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in their order."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        verb = self._verbs.get(cmd_name)
        return None if verb is None else verb.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their summaries, without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb.name, verb.summary) for verb in self._verbs.values()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of some arguments; of an unknown one say what it may have meant."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            _unknown(ctx, args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class Root(Verbs):
    """The command line as a whole: programs, nouns with their verbs, and short forms."""

    def __init__(self, programs: Sequence[Verb], nouns: Sequence[Noun], short: Sequence[Verb]) -> None:
        """Know all of them."""
        super().__init__(
            "khonsu", "Put things in places, on machines of your own. Begin with `khonsu dev`.", (*programs, *short)
        )
        self._nouns = {noun.name: noun for noun in nouns}
        self._sections = {
            "Programs": [(verb.name, verb.summary) for verb in programs],
            "Nouns (each with verbs)": [(noun.name, noun.summary) for noun in nouns],
            "Short forms": [(verb.name, verb.summary) for verb in short],
        }
        self.params.append(_version_option())

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in their order."""
        return [name for rows in self._sections.values() for name, _ in rows]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, or make a group of commands."""
        noun = self._nouns.get(cmd_name)
        return Verbs(noun.name, noun.summary, noun.verbs) if noun is not None else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write all there is, in sections."""
        for title, rows in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take note of what decides how wrong usage is told."""
        ours = args[: args.index("--")] if "--" in args else args
        ctx.meta[_JSON], ctx.meta[_EXIT_CODE] = "--json" in ours, "--exit-code" in ours
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; wrong usage is told as a problem document where JSON is asked for."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if ctx.meta[_JSON]:
                _as_problem(error)
            elif ctx.meta[_EXIT_CODE]:
                error.show()
            else:
                raise
            ctx.exit(OWN if ctx.meta[_EXIT_CODE] else error.exit_code)


def _version_option() -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's own signature
        if value and not ctx.resilient_parsing:
            from importlib.metadata import version

            click.echo(f"khonsu {version('khonsu')}")
            ctx.exit()

    callback: Callable[..., None] = show
    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=callback, help="Show the version."
    )


def _unknown(ctx: click.Context, name: str, known: Sequence[str]) -> NoReturn:
    from khonsu.core.names import nearest

    near = nearest(name, known)
    ctx.fail(f"there is no command {name!r}{f' (did you mean {near}?)' if near else ''}")


def _as_problem(error: click.ClickException) -> None:
    """Write wrong usage as the problem document that it would be."""
    import json

    document = {
        "type": "usage",
        "title": "Usage",
        "status": 400,
        "detail": error.format_message(),
        "hint": "",
        "retryable": False,
    }
    click.echo(json.dumps(document), err=True)
