"""What is refused before anything of a request is looked at: strangers and browsers."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers

from khonsu.api.answers import STRANGER, Refused, refused
from khonsu.core.secret import Secret
from khonsu.errors import NotAllowed

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""What anybody may ask: constants, and whether the server serves."""

_FORBIDDEN: Final = 403
_BEARER: Final = re.compile(r"[Bb]earer +([!-~]{1,1024})", re.ASCII)
_FROM_A_BROWSER: Final = ("origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")


class DoorGate:
    """Checks host, origin and the presence of a credential.

    Args:
        hosts: The names under which the server is known; `localhost` and all addresses are known anyhow, since what
            the check is for, a name that somebody points to this server, is neither. None takes any host.

    """

    def __init__(self, hosts: Iterable[str] | None) -> None:
        """Know the names."""
        self._hosts = (
            frozenset(host.lower().rstrip(".") for host in (*hosts, "localhost")) if hosts is not None else None
        )

    def admit(self, headers: Headers, path: str) -> Secret | None:
        """Return the credential of a request that may go on; None where none is needed.

        Raises:
            Refused: It may not.

        """
        credential = None
        if path not in OPEN_PATHS:
            credential = _credential(headers)
            if credential is None:
                raise Refused(STRANGER.status, STRANGER)
        self._check_host(headers)
        if any(name in headers for name in _FROM_A_BROWSER):
            raise Refused(
                _FORBIDDEN,
                NotAllowed("a web page may not use this API", hint="Use the command line, the client or curl"),
            )
        return credential

    def _check_host(self, headers: Headers) -> None:
        named = headers.getlist("host")
        if len(named) != 1:
            raise refused(400, "the request names no host, or several", "Send one Host header")
        host = _host(named[0])
        if self._hosts is None or host in self._hosts or _is_address(host):
            return
        raise Refused(
            _FORBIDDEN,
            NotAllowed(
                f"this server is not known as {host[:100]!r}",
                hint="Use one of its names, or start it with `--advertise NAME`",
            ),
        )


def _credential(headers: Headers) -> Secret | None:
    shown = headers.getlist("authorization")
    match = _BEARER.fullmatch(shown[0].strip()) if len(shown) == 1 else None
    return Secret(match[1]) if match else None


def _host(text: str) -> str:
    """Return the host of `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].lower().rstrip(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
