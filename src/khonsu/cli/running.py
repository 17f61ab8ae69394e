"""Running a command: its options, its event loop, and the exit code of what became of it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click
from attrs import frozen

from khonsu.cli.lazy import OWN
from khonsu.cli.output import Out
from khonsu.errors import (
    InvalidJob,
    InvalidRequest,
    JobFailed,
    KhonsuError,
    NotAllowed,
    NotFound,
    Unplaceable,
    Unreachable,
    WaitTimeout,
)

if TYPE_CHECKING:
    from khonsu.client.client import Client

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_PLACED: Final = 3
NOT_FOUND: Final = 4
NOT_ALLOWED: Final = 5
UNREACHABLE: Final = 6
TIMED_OUT: Final = 7
INTERRUPTED: Final = 130

EXIT_CODES: Final[Mapping[type[KhonsuError], int]] = {
    JobFailed: FAILED,
    InvalidJob: USAGE,
    InvalidRequest: USAGE,
    Unplaceable: NOT_PLACED,
    NotFound: NOT_FOUND,
    NotAllowed: NOT_ALLOWED,
    Unreachable: UNREACHABLE,
    WaitTimeout: TIMED_OUT,
}
"""Of an error and of all below it in the tree; of any other it is 1."""

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


@frozen(kw_only=True)
class Dial:
    """Which control plane is meant, as the options say."""

    server: str | None = None
    data_dir: Path | None = None
    token_file: Path | None = None
    ca: Path | None = None
    namespace: str = "default"

    def client(self) -> tuple[Client, str]:
        """Return a client of it, and its URL.

        Raises:
            KhonsuError: Nothing says which one is meant, or it cannot be used.

        """
        from khonsu.client.client import Client
        from khonsu.client.resolve import resolve

        transport, credential = resolve(self.server, self._token(), self.ca, data_dir=self.data_dir)
        return Client(transport, token=credential, namespace=self.namespace), transport.url

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"--token-file {self.token_file} cannot be read: {error}") from error


class Desk:
    """What a command works with: the client, its server, and where it writes."""

    def __init__(self, client: Client, server: str, out: Out) -> None:
        """Take all of it; `server` is the URL of the control plane."""
        from khonsu.env import SystemEnv

        self.client = client
        self.server = server
        self.out = out
        self.env = SystemEnv()


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--json`, and the `Out` that follows from it as its first argument."""

    def command(*arguments: Any, as_json: bool, **options: Any) -> Any:
        return function(Out(as_json=as_json), *arguments, **options)

    wrapped = update_wrapper(command, function)
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")(wrapped)


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which control plane is meant, as the argument `dial`."""
    wrapped = update_wrapper(_Dialling(function), function)
    folder = click.Path(file_okay=False, path_type=Path)
    file = click.Path(dir_okay=False, path_type=Path)
    for option in (
        click.option("--ca", type=file, help="The certificate of the control plane's authority (KHONSU_CA)."),
        click.option("--token-file", type=file, help="A file with the credential (or KHONSU_TOKEN: the credential)."),
        click.option("--data-dir", type=folder, help="The data of a server on this machine (KHONSU_DATA_DIR)."),
        click.option("--server", metavar="URL", help="The control plane (KHONSU_SERVER)."),
    ):
        wrapped = option(wrapped)
    return wrapped


class _Dialling:
    """A command that is given a `Dial` for the options of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        names = ("server", "data_dir", "token_file", "ca")
        given = {name: options.pop(name) for name in names}
        namespace = options.pop("namespace", "default")
        return self._function(*arguments, dial=Dial(**given, namespace=namespace), **options)


def namespace_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--namespace`."""
    return click.option(
        "--namespace", envvar="KHONSU_NAMESPACE", default="default", show_default=True, help="The namespace of jobs."
    )(function)


def asking(*, namespaced: bool = True, interrupted: str = "Interrupted.") -> Decorator:
    """Make a command of an async function of a `Desk`; what it returns is the exit code."""

    def make(function: Callable[..., Awaitable[int | None]]) -> Callable[..., Any]:
        def command(out: Out, *arguments: Any, dial: Dial, **options: Any) -> None:
            async def work() -> int | None:
                client, server = dial.client()
                async with client:
                    return await function(Desk(client, server, out), *arguments, **options)

            own_code = OWN if options.get("exit_code") else None
            execute(work, out, own_code=own_code, interrupted=lambda: interrupted)

        wrapped: Callable[..., Any] = update_wrapper(command, function)
        wrapped = server_options(wrapped)
        if namespaced:
            wrapped = namespace_option(wrapped)
        return json_option(wrapped)

    return make


def execute(
    work: Callable[[], Awaitable[int | None]],
    out: Out,
    *,
    own_code: int | None = None,
    interrupted: Callable[[], str] = lambda: "Interrupted.",
) -> None:
    """Run a command in an event loop, and end with its exit code.

    Args:
        work: The command; returns the exit code, None for 0.
        out: Where an error is written.
        own_code: The exit code of every error, where other codes are the task's.
        interrupted: What is said when the command is interrupted from the keyboard.

    """
    import anyio

    try:
        code = anyio.run(work)
    except KeyboardInterrupt:
        out.note(interrupted())
        code = INTERRUPTED
    except KhonsuError as error:
        out.error(error)
        code = exit_code_of(error) if own_code is None else own_code
    sys.exit(code or OK)


def attempt(function: Callable[[], int | None], out: Out) -> None:
    """Run a command that needs no event loop, and end with its exit code."""
    try:
        code = function()
    except KhonsuError as error:
        out.error(error)
        code = exit_code_of(error)
    sys.exit(code or OK)


def exit_code_of(error: KhonsuError) -> int:
    """Return the exit code of an error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), FAILED)
