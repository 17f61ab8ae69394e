"""The client: one method for each thing that a control plane can be asked."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from khonsu.abc.transport import Transport
from khonsu.client.asking import Asker
from khonsu.client.jobs import JobMethods
from khonsu.client.nodes import NodeMethods
from khonsu.client.watching import StreamMethods
from khonsu.core.codec import from_json
from khonsu.core.results import SystemStatus
from khonsu.core.secret import Secret
from khonsu.env import Env, SystemEnv


class Client(JobMethods, NodeMethods, StreamMethods):
    """A client of a control plane; its methods may run concurrently.

    Used as an async context manager it keeps its connection; otherwise each call makes its own.

    Args:
        server: An address such as `https://khonsu.example:4747`, or a transport. None takes `KHONSU_SERVER`, then the
            server of `KHONSU_DATA_DIR` on this machine, then the profile of `khonsu login`.
        token: The credential; None takes `KHONSU_TOKEN`, then what belongs to the server.
        namespace: The namespace of everything that is named, and of jobs that name none but the default.
        ca: The certificate of the control plane's authority as PEM text or file; None takes what belongs to the server.
        env: Time and chance.

    Raises:
        InvalidRequest: Nothing says which server is meant, or whom to trust.

    """

    def __init__(
        self,
        server: str | Transport | None = None,
        /,
        *,
        token: Secret | str | None = None,
        namespace: str = "default",
        ca: str | Path | None = None,
        env: Env | None = None,
    ) -> None:
        """Make a client; nothing is dialled yet."""
        if isinstance(server, Transport):
            transport, credential = server, None if token is None else Secret.of(token)
        else:
            from khonsu.client.resolve import resolve  # only where a name must be resolved

            transport, credential = resolve(server, token, ca)
        super().__init__(Asker(transport, credential), namespace, env if env is not None else SystemEnv())

    async def __aenter__(self) -> Self:
        """Keep a connection for the length of the block."""
        await self._asker.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the connection go."""
        await self._asker.close(exc_type, exc, traceback)

    async def status(self) -> SystemStatus:
        """Return the state of the control plane itself."""
        return from_json(SystemStatus, await self._asker.call("system.status", {}))
