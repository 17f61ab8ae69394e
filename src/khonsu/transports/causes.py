"""Why there was no answer, in plain words."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Final

from khonsu.errors import Unreachable
from khonsu.transports.address import Address

# X509_V_ERR_...: no issuer, self-signed, a wrong signature: signed by somebody whom we do not trust.
_FOREIGN: Final = frozenset({2, 7, 18, 19, 20, 21})
_DATES: Final = {9: "is not valid yet", 10: "has run out"}
_NAMES: Final = frozenset({62, 64})  # HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH

_RUNNING: Final = "Check that the server runs, and that the address and the port are right"
_ERRNO: Final = {
    errno.ECONNREFUSED: ("the connection was refused", _RUNNING),
    errno.ENETUNREACH: ("there is no way to its network", "Check the network of this machine"),
    errno.EHOSTUNREACH: ("there is no way to its machine", "Check the address, and that the machine is on"),
    errno.ETIMEDOUT: ("it does not react", "Check the address, and whether a firewall is in between"),
    errno.ECONNRESET: ("it cut the connection", _RUNNING),
    errno.EPIPE: ("it cut the connection", _RUNNING),
    errno.EMFILE: ("this process has too many files open", "Raise its limit (`ulimit -n`)"),
}


def unreachable(address: Address, error: BaseException) -> Unreachable:
    """Return the error that tells why a server did not answer."""
    server = str(address)
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            cause, hint = _certificate(address, each)
        elif isinstance(each, ssl.SSLError):
            cause = f"the TLS handshake failed ({each.reason or each})"
            hint = "Check that a Khonsu server listens there, and not something else"
        elif isinstance(each, socket.gaierror):
            cause, hint = f"the name {address.host} is not known", "Check the spelling, or use the IP address"
        elif isinstance(each, OSError) and each.errno in _ERRNO:
            cause, hint = _ERRNO[each.errno]
        else:
            continue
        return Unreachable(server, cause, hint=hint)
    text = str(error).rstrip(".")
    return Unreachable(server, text[:1].lower() + text[1:] if text else type(error).__name__, hint=_RUNNING)


def is_foreign(error: BaseException) -> bool:
    """Return whether the server's certificate was signed by somebody whom we do not trust."""
    refused = [each for each in _chain(error) if isinstance(each, ssl.SSLCertVerificationError)]
    return any(each.verify_code in _FOREIGN for each in refused)


def _certificate(address: Address, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    if error.verify_code in _NAMES:
        return (
            f"its certificate is not for {address.host}",
            f"Use a name it was started with, or start it with `--advertise {address.host}`",
        )
    if error.verify_code in _DATES:
        return f"its certificate {_DATES[error.verify_code]}", "Check the clocks of this machine and of the server"
    return f"its certificate is not trusted ({error.verify_message})", "Check the address and the pinned authority"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and all that led to it, the latest first."""
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, BaseExceptionGroup):
            todo.extend(each.exceptions)
        todo.extend(before for before in (each.__cause__, each.__context__) if before is not None)
