"""The first start: what a control plane must have before it serves."""

from __future__ import annotations

from pathlib import Path

from khonsu.control.gate import Gate
from khonsu.control.state import State
from khonsu.core.operations import Role
from khonsu.core.records import Setting
from khonsu.core.secret import Secret
from khonsu.env import Env
from khonsu.errors import MalformedToken
from khonsu.security.encoding import base32
from khonsu.security.files import PrivateDirectory
from khonsu.security.tokens import BearerToken

OPERATOR_TOKEN = "operator.token"  # noqa: S105 - the name of a file
CLUSTER_ID_BYTES = 10


async def settle(state: State) -> None:
    """Give a new cluster its id, and note when its term began."""
    batch = state.batch()
    if "cluster" not in state.tables.settings:
        batch.put(Setting(key="cluster", value=base32(state.env.token_bytes(CLUSTER_ID_BYTES))))
    if "term-began" not in state.tables.settings:
        batch.put(Setting(key="term-began", value=batch.now))
    if batch.changes:
        await state.commit(batch)


async def operator_token(directory: Path, state: State, gate: Gate) -> None:
    """See to it that the data directory holds a token of an operator that is valid here.

    Where it does not, a new one is made, and the one before is void: whoever deletes the file means that.
    """
    text = await state.env.run_blocking(_read, directory)
    if text is not None and _is_known(state, text):
        return
    batch = state.batch()
    # All that are stored: an operator's token is made nowhere else.
    batch.delete("credential", *(one.id for one in state.tables.credentials.values() if one.role == Role.OPERATOR))
    token = gate.issue(batch, Role.OPERATOR)
    written = state.apply(batch)
    # The file before the answer of the disk: a token that is only in a file opens nothing.
    await state.env.run_blocking(_write, directory, token, state.env)
    await written.durable()


def _read(directory: Path) -> Secret | None:
    with PrivateDirectory(directory) as files:
        data = files.read(OPERATOR_TOKEN)
    return None if data is None else Secret(data.decode("utf-8", "replace"))


def _write(directory: Path, token: Secret, env: Env) -> None:
    with PrivateDirectory(directory, env.fsync) as files:
        files.write(OPERATOR_TOKEN, token.reveal().encode() + b"\n")


def _is_known(state: State, text: Secret) -> bool:
    try:
        token = BearerToken.parse(text)
    except MalformedToken:
        return False
    record = state.tables.credentials.get(token.id)
    return record is not None and token.matches(record.secret_hash)
