"""`khonsu doctor`: check what usually goes wrong, and say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from khonsu.cli.checks import Finding
from khonsu.cli.running import FAILED, OK, Dial, execute, json_option, server_options
from khonsu.cli.server import LISTEN

if TYPE_CHECKING:
    from khonsu.cli.output import Out


@click.command()
@click.option("--listen", default=LISTEN, show_default=True, metavar="HOST:PORT", help="Where a server would serve.")
@click.option(
    "--agent-dir", type=click.Path(file_okay=False, path_type=Path), help="The data directory of an agent to check."
)
@server_options
@json_option
def doctor(out: Out, *, dial: Dial, listen: str, agent_dir: Path | None) -> None:
    """Check clock, ports, permissions, database and reachability. Ends with 1 if something is wrong."""

    async def work() -> int:
        findings: list[Finding] = []
        async for finding in _look(dial, listen, agent_dir):
            findings.append(finding)
            if not out.as_json:
                _tell(out, finding)
        wrong = sum(finding.status == "wrong" for finding in findings)
        if out.as_json:
            out.json({"ok": not wrong, "checks": [finding.shape() for finding in findings]})
        else:
            out.line()
            out.line(f"{wrong} of {len(findings)} checks found something wrong." if wrong else "Nothing is wrong.")
        return FAILED if wrong else OK

    execute(work, out)


async def _look(dial: Dial, listen: str, agent_dir: Path | None) -> AsyncIterator[Finding]:
    """Make one check after the other."""
    from khonsu.cli import checks
    from khonsu.env import SystemEnv

    env = SystemEnv()
    data_dir = checks.data_directory(dial)
    yield checks.open_files()
    if data_dir is not None:
        yield await env.run_blocking(checks.permissions, data_dir)
        yield await env.run_blocking(checks.database, data_dir)
        yield await env.run_blocking(checks.disk, data_dir)
    if agent_dir is not None:
        yield await env.run_blocking(partial(checks.private, "agent directory"), agent_dir)
        yield await env.run_blocking(checks.disk, agent_dir)
    reached = await checks.reach(dial, env)
    if data_dir is not None and reached.status is None:
        yield await env.run_blocking(checks.port, listen)
    yield reached.finding
    yield checks.clock(reached, env)
    if reached.status is not None:
        yield checks.nodes(reached.status)
        for warning in reached.status.warnings:
            yield Finding("control plane", "warning", warning)


def _tell(out: Out, finding: Finding) -> None:
    out.line(f"{out.status(finding.status, 8)} {out.bold(finding.check)}: {finding.found}")
    if finding.advice:
        out.line(f"         {finding.advice}")
