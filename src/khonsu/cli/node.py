"""`khonsu node`: the machines."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import click

from khonsu.cli.running import Desk, asking
from khonsu.cli.times import ago, moment, span
from khonsu.cli.words import DURATION, pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from khonsu.core.records import Node

DATA_DIR_SHOWN: Final = "khonsu-agent"


async def show_list(desk: Desk) -> None:
    """Write the nodes."""
    from khonsu.cli.shapes import shapes

    nodes = await desk.client.nodes()
    if desk.out.as_json:
        desk.out.json(shapes(nodes))
    elif not nodes:
        desk.out.note("There are no nodes yet. `khonsu node invite` prints the line that makes a machine one.")
    else:
        desk.out.table(("NAME", "STATUS", "WORK", "CPU", "MEMORY", "DRIVERS", "LABELS", "SEEN"), _rows(desk, nodes))


def _rows(desk: Desk, nodes: Sequence[Node]) -> list[tuple[object, ...]]:
    from khonsu.core.units import format_cpu, format_size

    now = desk.env.now()
    return [
        (
            node.name,
            node.status,
            node.eligibility,
            format_cpu(node.resources.cpu_millis),
            format_size(node.resources.memory_bytes),
            " ".join(driver.name if driver.healthy else f"{driver.name}(unhealthy)" for driver in node.drivers) or "-",
            " ".join(f"{key}={value}" for key, value in sorted(node.labels.items())) or "-",
            ago(node.last_seen, now),
        )
        for node in nodes
    ]


@click.command("list")
@asking(namespaced=False)
async def list_(desk: Desk) -> None:
    """List nodes."""
    await show_list(desk)


@click.command()
@click.argument("name", required=False)
@asking()
async def status(desk: Desk, name: str | None) -> None:
    """Show a node and what runs on it. Without a NAME, list nodes."""
    from khonsu.cli.job import allocations
    from khonsu.cli.shapes import shape

    if name is None:
        await show_list(desk)
        return
    node = await desk.client.node(name)
    if desk.out.as_json:
        desk.out.json(shape(node))
        return
    live = tuple(one for one in await desk.client.allocations(node=node) if one.live)
    _show(desk, node, len(live))
    if live:
        desk.out.title("Allocations")
    allocations(desk, live, job=True)


def _show(desk: Desk, node: Node, live: int) -> None:
    from khonsu.core.units import format_cpu, format_size

    now = desk.env.now()
    draining = None
    if node.drain_deadline_at is not None:
        left = span(max(0.0, node.drain_deadline_at - now))
        draining = f"{moment(node.drain_deadline_at)} (in {left}); copies left: {live}"
    desk.out.facts(
        (
            ("node", node.name),
            ("id", node.id),
            ("pool", node.pool),
            ("status", node.status),
            ("since", ago(node.status_at, now)),
            ("work", node.eligibility),
            ("drained by", draining),
            ("seen", ago(node.last_seen, now)),
            ("joined", ago(node.joined_at, now)),
            ("address", node.address),
            ("version", node.version),
            ("cpu", f"{format_cpu(node.resources.cpu_millis)} cores"),
            ("memory", format_size(node.resources.memory_bytes)),
            ("disk", format_size(node.resources.disk_bytes)),
        )
    )
    if node.labels:
        desk.out.title("Labels")
        desk.out.facts(sorted(node.labels.items()))
    desk.out.title("Attributes")
    desk.out.facts(sorted(node.attributes.items()))
    for driver in node.drivers:
        if not driver.healthy:
            desk.out.line(f"driver {driver.name} is not healthy: {driver.message}")


@click.command()
@click.argument("name")
@click.option("--deadline", type=DURATION, default="10m", show_default=True, help="When what is left is stopped.")
@asking(namespaced=False)
async def drain(desk: Desk, name: str, deadline: str | float) -> None:
    """Move all work off a node, and give it no more."""
    node = await desk.client.drain_node(name, deadline=deadline)
    _told(
        desk,
        node,
        f"Node {node.name} is draining; what is left after {deadline} is stopped. "
        f"`khonsu node status {node.name}` shows how it goes.",
    )


@click.command()
@click.argument("name")
@asking(namespaced=False)
async def undrain(desk: Desk, name: str) -> None:
    """Give a node work again."""
    node = await desk.client.undrain_node(name)
    _told(desk, node, f"Node {node.name} may be given work again.")


@click.command()
@click.argument("name")
@asking(namespaced=False)
async def remove(desk: Desk, name: str) -> None:
    """Forget a node that is down; what may still run there is given up."""
    node = await desk.client.remove_node(name)
    _told(desk, node, f"Node {node.name} is forgotten, and its credential is worth nothing any more.")


def _told(desk: Desk, node: Node, sentence: str) -> None:
    from khonsu.cli.shapes import shape

    if desk.out.as_json:
        desk.out.json(shape(node))
    else:
        desk.out.line(sentence)


@click.command()
@click.option("--name", help="The name that the node must have.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label that the node gets.")
@click.option("--valid", type=DURATION, default="15m", show_default=True, help="How long the invitation can be used.")
@click.option("--token-only", is_flag=True, help="Print only the join token.")
@asking(namespaced=False)
async def invite(
    desk: Desk, *, name: str | None, labels: tuple[str, ...], valid: str | float, token_only: bool
) -> None:
    """Print the line that makes another machine a node. It works once."""
    from khonsu.cli.shapes import shape
    from khonsu.transports.address import Address

    invitation = await desk.client.invite_node(name=name, labels=pairs(labels, "--label"), valid=valid)
    words = [
        "khonsu",
        "agent",
        "--server",
        desk.server,
        "--data-dir",
        DATA_DIR_SHOWN,
        *(["--name", name] if name else []),
    ]
    line = f"KHONSU_JOIN={invitation.token} {shlex.join(words)}"
    if desk.out.as_json:
        desk.out.json({**shape(invitation), "server": desk.server, "command": line})
        return
    if token_only:
        desk.out.line(invitation.token)
        return
    left = span(max(0.0, invitation.expires_at - desk.env.now()))
    desk.out.note(f"Paste this on the new machine within {left}; it works once:\n")
    desk.out.line(line)
    if Address.parse(desk.server).loopback:
        desk.out.note(
            f"\nwarning: {desk.server} can be reached from this machine only. Let the server listen elsewhere: "
            "`khonsu server --listen 0.0.0.0:4747 --advertise NAME`"
        )
