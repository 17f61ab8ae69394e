"""`khonsu dev`: a control plane and an agent in one process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from khonsu.cli.agent import ON_EXIT, network_option
from khonsu.cli.running import json_option
from khonsu.cli.server import LISTEN, fingerprint_of
from khonsu.cli.serving import Ending, announce, known_address, log_option, made_directory, serve

if TYPE_CHECKING:
    from khonsu.agent.agent import OnExit
    from khonsu.cli.output import Out

NODE = "dev"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is kept; without one, in ~/.local/share/khonsu/dev.",
)
@click.option("--listen", default=LISTEN, show_default=True, metavar="HOST:PORT", help="Where it serves.")
@network_option
@click.option("--on-exit", type=ON_EXIT, default="stop", show_default=True, help="What happens to tasks at the end.")
@log_option
@json_option
def dev(
    out: Out,
    *,
    data_dir: Path | None,
    listen: str,
    artifact_networks: tuple[str, ...],
    on_exit: OnExit,
    log_level: str,
) -> None:
    """Run a control plane and an agent for yourself, until Ctrl-C. The next `khonsu dev` goes on where it ended.

    Other commands find it by themselves where nothing else is chosen.
    """

    async def body(ending: Ending) -> None:
        from khonsu.cli.wiring import control_plane, local_agent
        from khonsu.client.profiles import development_directory

        directory = made_directory(data_dir if data_dir is not None else development_directory())
        async with control_plane(directory, listen, ()) as control:
            agent = local_agent(
                NODE,
                control,
                directory / "node",
                drivers=["binary"],
                labels={},
                artifact_networks=artifact_networks,
                on_exit=on_exit,
            )
            async with agent, known_address(directory, control.addresses[0]):
                _welcome(out, directory, control.addresses[0], found=data_dir is None)
                await ending.told()

    serve(body, out, log_level=log_level)


def _welcome(out: Out, directory: Path, address: str, *, found: bool) -> None:
    option = "" if found else f" --data-dir {directory}"
    lines = (
        f"A control plane and a node named {NODE} run on {address}; their data is in {directory}",
        "",
        "In another terminal:",
        f"  khonsu run{option} -- /bin/echo hello",
        "  khonsu job init web.toml",
        f"  khonsu run{option} web.toml",
    )
    announce(
        out,
        {"address": address, "fingerprint": fingerprint_of(directory), "node": NODE, "data_dir": str(directory)},
        lines,
    )
