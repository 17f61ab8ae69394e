"""Who a node is: the credential that it was given when it joined, kept in a private file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from attrs import field, frozen

from khonsu.core.ids import NodeId
from khonsu.core.secret import Secret
from khonsu.env import Env
from khonsu.errors import InvalidRequest, UnsafeFile
from khonsu.security.files import PrivateDirectory

FILE: Final = "identity.json"


@frozen(kw_only=True)
class NodeIdentity:
    """A node of one cluster. `authority` (PEM) is whom its server must belong to, where that can be known."""

    node: NodeId
    name: str
    cluster: str
    credential: Secret = field(repr=False)
    authority: str | None = None


def read_identity(directory: Path) -> NodeIdentity | None:
    """Return the identity of a data directory, or None if no agent has joined with it. Blocks.

    Raises:
        UnsafeFile: Others may read it, or it is damaged.

    """
    with PrivateDirectory(directory) as files:
        data = files.read(FILE)
    if data is None:
        return None
    try:
        values = json.loads(data)
        authority = values.get("authority")
        return NodeIdentity(
            node=NodeId(str(values["node"])),
            name=str(values["name"]),
            cluster=str(values["cluster"]),
            credential=Secret(values["credential"]),
            authority=str(authority) if authority is not None else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnsafeFile(
            str(directory / FILE), "is damaged", hint="Remove it, and let the agent join again with a new token"
        ) from error


def write_identity(directory: Path, identity: NodeIdentity, env: Env) -> None:
    """Keep an identity, durably and for nobody else to read. Blocks."""
    values = {
        "node": identity.node,
        "name": identity.name,
        "cluster": identity.cluster,
        "credential": identity.credential.reveal(),
        "authority": identity.authority,
    }
    with PrivateDirectory(directory, env.fsync) as files:
        files.write(FILE, json.dumps(values, indent=1).encode())


def check_name(identity: NodeIdentity, name: str, directory: Path) -> None:
    """Check that a data directory is that of the node whose agent starts on it.

    Raises:
        InvalidRequest: It is another one's.

    """
    if identity.name != name:
        raise InvalidRequest(
            f"the data directory {directory} is that of node {identity.name}, not of {name}",
            hint=f"Start the agent as {identity.name}, or give {name} a data directory of its own",
        )
