"""`khonsu server`: a control plane."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from khonsu.cli.running import json_option
from khonsu.cli.serving import Ending, announce, known_address, log_option, made_directory, serve

if TYPE_CHECKING:
    from khonsu.cli.output import Out

LISTEN = "127.0.0.1:4747"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    envvar="KHONSU_DATA_DIR",
    help="Its state, its keys and the operator's token. All that is needed is made in an empty one.",
)
@click.option("--listen", default=LISTEN, show_default=True, metavar="HOST:PORT", help="Where it serves.")
@click.option("--advertise", multiple=True, metavar="NAME", help="A name or address by which others reach it.")
@log_option
@json_option
def server(out: Out, *, data_dir: Path, listen: str, advertise: tuple[str, ...], log_level: str) -> None:
    """Run a control plane, until it is told to end (Ctrl-C)."""

    async def body(ending: Ending) -> None:
        from khonsu.cli.wiring import control_plane

        directory = made_directory(data_dir)
        async with control_plane(directory, listen, advertise) as control:
            address = control.addresses[0]
            async with known_address(directory, address):
                welcome(out, directory, address, fingerprint_of(directory))
                await ending.told()

    serve(body, out, log_level=log_level)


def fingerprint_of(directory: Path) -> str:
    """Return the fingerprint of the authority in a data directory."""
    from khonsu.client.resolve import CA_FILE
    from khonsu.security.pinning import fingerprint_of_pem

    return str(fingerprint_of_pem((directory / CA_FILE).read_text(encoding="ascii")))


def welcome(out: Out, directory: Path, address: str, fingerprint: str) -> None:
    """Say where a control plane serves, and how to go on."""
    from khonsu.client.resolve import TOKEN_FILE

    facts = {"address": address, "fingerprint": fingerprint, "data_dir": str(directory)}
    lines = (
        f"The control plane serves on {address}",
        f"  its authority   {fingerprint}",
        f"  its data        {directory} (the operator's token is in {TOKEN_FILE})",
        "",
        "On this machine:",
        f"  khonsu job list --data-dir {directory}",
        "From another machine:",
        f"  khonsu login {address} --fingerprint {fingerprint}",
        "To make a machine a node:",
        f"  khonsu node invite --data-dir {directory}",
    )
    announce(out, {**facts}, lines)
