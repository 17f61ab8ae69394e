"""`khonsu login` and `khonsu context`: the control planes that somebody is logged in to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from khonsu.cli.running import attempt, execute, json_option
from khonsu.errors import InvalidRequest

if TYPE_CHECKING:
    from khonsu.cli.output import Out
    from khonsu.client.profiles import Profile


@click.command()
@click.argument("url")
@click.option(
    "--fingerprint", metavar="khc1...", help="The fingerprint of its authority, as it prints it at its start."
)
@click.option("--ca", type=click.Path(dir_okay=False, path_type=Path), help="The certificate of its authority instead.")
@click.option("--token-file", metavar="FILE|-", help="The credential (or KHONSU_TOKEN); asked for without one.")
@click.option("--name", help="The name of the profile; without one, the host's.")
@json_option
def login(
    out: Out,
    *,
    url: str,
    fingerprint: str | None,
    ca: Path | None,
    token_file: str | None,
    name: str | None,
) -> None:
    """Log in to the control plane at URL: check it and the credential, and remember both in a private file."""
    if (fingerprint is None) == (ca is None):
        raise click.UsageError("give --fingerprint or --ca, to say whom to trust")

    async def work() -> None:
        from khonsu.client.profiles import config_directory, read_profiles, write_profiles
        from khonsu.env import SystemEnv
        from khonsu.transports.address import Address

        profile = await _checked(url, fingerprint, ca, _token(token_file))
        chosen = name or Address.parse(profile.server).host
        await SystemEnv().run_blocking(lambda: write_profiles(read_profiles().having(chosen, profile)))
        if out.as_json:
            out.json({"name": chosen, "server": profile.server, "current": True})
        else:
            out.line(f"Logged in to {profile.server} as profile {chosen} (kept in {config_directory()}).")

    execute(work, out)


async def _checked(url: str, fingerprint: str | None, ca: Path | None, token: str) -> Profile:
    """Return the profile of a control plane that has proved itself, and that knows the credential."""
    from khonsu.client.client import Client
    from khonsu.client.profiles import Profile
    from khonsu.transports.http import HTTPTransport

    transport = HTTPTransport(url, ca=ca, fingerprint=fingerprint)
    async with Client(transport, token=token) as client:
        await client.status()
    return Profile(server=transport.url, ca=transport.authority or "", token=token)


def _token(file: str | None) -> str:
    if file is None and os.environ.get("KHONSU_TOKEN"):
        return os.environ["KHONSU_TOKEN"].strip()
    if file is None:
        if not sys.stdin.isatty():
            raise InvalidRequest(
                "no credential is given", hint="Use --token-file FILE, --token-file -, or KHONSU_TOKEN"
            )
        prompted: str = click.prompt("Token", hide_input=True, err=True)
        return prompted.strip()
    try:
        return (sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--token-file {file} cannot be read: {error}") from error


@click.command("list")
@json_option
def context_list(out: Out) -> None:
    """List the control planes that you are logged in to."""

    def work() -> None:
        from khonsu.client.profiles import read_profiles

        known = read_profiles()
        names = sorted(known.profiles)
        if out.as_json:
            out.json([_shape(name, known.profiles[name], current=name == known.current) for name in names])
        elif not names:
            out.note("You are logged in nowhere. `khonsu login URL --fingerprint khc1...` is how it begins.")
        else:
            rows = [("*" if name == known.current else "", name, known.profiles[name].server) for name in names]
            out.table(("", "NAME", "SERVER"), rows)

    attempt(work, out)


@click.command("use")
@click.argument("name")
@json_option
def context_use(out: Out, name: str) -> None:
    """Choose the control plane that is meant from now on."""

    def work() -> None:
        from khonsu.client.profiles import read_profiles, write_profiles

        known = read_profiles().using(name)
        write_profiles(known)
        if out.as_json:
            out.json(_shape(name, known.profiles[name], current=True))
        else:
            out.line(f"From now on {known.profiles[name].server} is meant.")

    attempt(work, out)


def _shape(name: str, profile: Profile, *, current: bool) -> dict[str, object]:
    return {"name": name, "server": profile.server, "current": current}
