"""`khonsu agent`: make this machine a node."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from khonsu.cli.running import json_option
from khonsu.cli.serving import Ending, announce, log_option, made_directory, serve
from khonsu.cli.words import pairs
from khonsu.errors import InvalidRequest

if TYPE_CHECKING:
    from khonsu.agent.agent import OnExit
    from khonsu.cli.output import Out
    from khonsu.core.job import Resources
    from khonsu.core.secret import Secret

JOIN_VARIABLE = "KHONSU_JOIN"
ON_EXIT = click.Choice(["leave", "stop", "drain"])

network_option = click.option(
    "--artifact-network",
    "artifact_networks",
    multiple=True,
    metavar="NETWORK",
    help="Where artifacts may come from besides the public internet, such as 192.168.1.0/24.",
)


@click.command()
@click.option("--server", required=True, envvar="KHONSU_SERVER", metavar="URL", help="The control plane.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The agent's own directory: its identity, its journal, and what its tasks need.",
)
@click.option("--name", help="The node's name; without one, that of this machine.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the node, for constraints.")
@click.option("--pool", default="default", show_default=True, help="The pool of nodes that it belongs to.")
@click.option("--driver", "drivers", multiple=True, default=("binary",), show_default=True, help="How tasks can run.")
@click.option("--cpu", metavar="CORES", help="What tasks may reserve, instead of all there is.")
@click.option("--memory", metavar="SIZE", help="What tasks may reserve, instead of all there is.")
@network_option
@click.option("--join-file", metavar="FILE|-", help="A file with the join token (or KHONSU_JOIN), the first time.")
@click.option("--ca", type=click.Path(dir_okay=False, path_type=Path), help="The certificate of the authority.")
@click.option(
    "--on-exit", type=ON_EXIT, default="leave", show_default=True, help="What happens to the tasks at the end."
)
@log_option
@json_option
def agent(
    out: Out,
    *,
    server: str,
    data_dir: Path,
    name: str | None,
    labels: tuple[str, ...],
    pool: str,
    drivers: tuple[str, ...],
    cpu: str | None,
    memory: str | None,
    artifact_networks: tuple[str, ...],
    join_file: str | None,
    ca: Path | None,
    on_exit: OnExit,
    log_level: str,
) -> None:
    """Run an agent, until it is told to end (Ctrl-C); its tasks run on, for the next one on the same directory.

    The first time it needs the join token that `khonsu node invite` prints.
    """
    given_labels = pairs(labels, "--label")
    resources = _resources(cpu, memory)
    node = name or socket.gethostname().partition(".")[0].lower()

    async def body(ending: Ending) -> None:
        from khonsu.cli.wiring import remote_agent

        directory = made_directory(data_dir)
        made = remote_agent(
            node,
            server,
            directory,
            ca=ca,
            join_token=_join_token(join_file),
            drivers=drivers,
            labels=given_labels,
            pool=pool,
            resources=resources,
            artifact_networks=artifact_networks,
            on_exit=on_exit,
        )
        async with made:
            facts: dict[str, str | None] = {"node": node, "server": server, "data_dir": str(directory)}
            announce(out, facts, (f"Node {node} is registered at {server}; its data is in {directory}",))
            await ending.told()

    serve(body, out, log_level=log_level)


def _join_token(file: str | None) -> Secret | None:
    """Return the join token, which neither the agent's arguments nor the environment of its tasks may show."""
    from khonsu.core.secret import Secret

    variable = os.environ.pop(JOIN_VARIABLE, "")
    if file is None:
        return Secret(variable.strip()) if variable.strip() else None
    try:
        text = sys.stdin.readline() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--join-file {file} cannot be read: {error}") from error
    return Secret(text.strip())


def _resources(cpu: str | None, memory: str | None) -> Resources | None:
    """Return what tasks may reserve; what is not said is what this machine has."""
    if cpu is None and memory is None:
        return None
    from khonsu.core.job import Resources

    if cpu is None or memory is None:
        raise click.UsageError("--cpu and --memory go together")
    try:
        return Resources(cpu=cpu, memory=memory)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
