"""Becoming a node: by a join token, once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from khonsu.abc.transport import Identity, Request, SupportsPinning, Transport
from khonsu.agent.identity import FILE, NodeIdentity, write_identity
from khonsu.core.codec import from_json, to_json
from khonsu.core.protocol import JoinRequest, JoinResponse, NodeFacts, speaks
from khonsu.core.secret import Secret
from khonsu.env import Env
from khonsu.errors import Conflict, KhonsuError, Unauthenticated, UnsafeFile

JOIN_SECONDS_MAX: Final = 30.0
ANSWER_SECONDS_MAX: Final = 10.0
RETRY_SECONDS: Final = 0.5
_log = logging.getLogger(__name__)


def trusted(transport: Transport, identity: NodeIdentity) -> Transport:
    """Return the transport that trusts whom the node trusted before, unless it knows by itself whom to trust."""
    if identity.authority is None or not isinstance(transport, SupportsPinning) or transport.authority is not None:
        return transport
    return transport.pinned(identity.authority)


async def join(
    transport: Transport, token: Secret | None, *, name: str, facts: NodeFacts, directory: Path, env: Env
) -> NodeIdentity:
    """Become a node, and keep its identity.

    A control plane that does not answer is asked again for half a minute.

    Args:
        transport: The way to the control plane; within its own process it needs no token.
        token: The join token.
        name: What the node is to be called.
        facts: What it is.
        directory: The data directory.
        env: Time and threads.

    Raises:
        Unauthenticated: The token is missing, was used, or has run out.
        Conflict: There is such a node, and it is ready.
        Unreachable: There is no answer.
        UnsafeFile: The identity cannot be kept.

    """
    identity = Identity(credential=token) if token is not None else None
    body = to_json(JoinRequest(name=name, facts=facts))
    async with transport.connect(identity) as connection:
        request = Request(operation="node.join", body=body, deadline_seconds=ANSWER_SECONDS_MAX)
        began = env.monotonic()
        while True:
            try:
                answer = from_json(JoinResponse, (await connection.call(request)).body)
                break
            except Unauthenticated as error:
                raise _refused(error, name, token) from error
            except KhonsuError as error:
                if not error.retryable or env.monotonic() - began > JOIN_SECONDS_MAX:
                    raise
                _log.warning("node %s cannot join yet: %s", name, error)
                await env.sleep(env.jittered(RETRY_SECONDS))
    if not speaks(answer.protocol):
        raise Conflict(f"the control plane speaks protocol {answer.protocol}", hint="Upgrade the older of both")
    authority = transport.authority if isinstance(transport, SupportsPinning) else None
    joined = NodeIdentity(
        node=answer.node,
        name=answer.name,
        cluster=answer.cluster,
        credential=Secret(answer.credential),
        authority=authority,
    )
    await _keep(directory, joined, env)
    return joined


async def _keep(directory: Path, joined: NodeIdentity, env: Env) -> None:
    """Keep an identity, for which the token was used up; a disk that fails is tried again for half a minute.

    Raises:
        UnsafeFile: It cannot be kept.

    """
    began = env.monotonic()
    while True:
        try:
            return await env.run_blocking(write_identity, directory, joined, env)
        except OSError as error:
            if env.monotonic() - began > JOIN_SECONDS_MAX:
                hint = "Look at the disk, and join again with a new token (`khonsu node invite`)"
                raise UnsafeFile(str(directory / FILE), f"cannot be written: {error.strerror}", hint=hint) from error
            _log.warning("node %s has joined and cannot keep its identity yet: %s", joined.name, error)
            await env.sleep(env.jittered(RETRY_SECONDS))


def _refused(error: Unauthenticated, name: str, token: Secret | None) -> Unauthenticated:
    if token is None:
        hint = "Make a join token with `khonsu node invite`, and give it as KHONSU_JOIN, --join-file or join_token="
        return Unauthenticated(f"node {name} has not joined yet, and has no join token", hint=hint)
    return Unauthenticated(f"node {name} cannot join: {error.message}", hint=error.hint)
