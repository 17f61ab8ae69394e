"""Which server is meant, whom to trust, and which credential: from arguments, variables, data directories, profiles.

An argument always beats a variable: with `data_dir` given, neither `KHONSU_SERVER` nor `KHONSU_TOKEN` matters.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

from khonsu.client.profiles import Profile, development_directory, read_profiles
from khonsu.core.secret import Secret
from khonsu.errors import InvalidRequest, NotAllowed, Unreachable
from khonsu.security.files import PrivateDirectory

if TYPE_CHECKING:
    from khonsu.transports.http import HTTPTransport

SERVER_VARIABLE: Final = "KHONSU_SERVER"
TOKEN_VARIABLE: Final = "KHONSU_TOKEN"  # noqa: S105 - the name of a variable
CA_VARIABLE: Final = "KHONSU_CA"
DATA_VARIABLE: Final = "KHONSU_DATA_DIR"

ADDRESS_FILE: Final = "server.address"
TOKEN_FILE: Final = "operator.token"  # noqa: S105 - the name of a file
CA_FILE: Final = "ca.pem"


@frozen(kw_only=True)
class Place:
    """A server, and what is known of it."""

    server: str
    ca: str | Path | None = None
    token: Secret | None = None
    asked_for: bool = False
    """Whether an argument names its data directory, so that variables do not matter."""


def resolve(
    server: str | None,
    token: Secret | str | None,
    ca: str | Path | None,
    *,
    data_dir: Path | None = None,
) -> tuple[HTTPTransport, Secret | None]:
    """Return the way to a control plane, and the credential for it. Reads small files.

    Args:
        server: Its URL; None takes that of `data_dir`, then `KHONSU_SERVER`, `KHONSU_DATA_DIR`, the profile in use, and
            at last the server of `khonsu dev`.
        token: The credential; None takes `KHONSU_TOKEN`, then what belongs to the server.
        ca: The certificate of its authority; None takes `KHONSU_CA`, then what belongs to the server.
        data_dir: The data directory of a server on this machine.

    Raises:
        InvalidRequest: Nothing says which server is meant, or whom to trust.
        Unreachable: No server runs on the data directory.
        NotAllowed: The data directory is not for this user.

    """
    from khonsu.transports.http import HTTPTransport

    place = find(server, data_dir, os.environ)
    if token is None and not place.asked_for and os.environ.get(TOKEN_VARIABLE):
        token = os.environ[TOKEN_VARIABLE]
    if ca is None and not place.asked_for and os.environ.get(CA_VARIABLE):
        ca = Path(os.environ[CA_VARIABLE])
    credential = Secret.of(token) if token is not None else place.token
    return HTTPTransport(place.server, ca=ca if ca is not None else place.ca), credential


def find(server: str | None, data_dir: Path | None, environ: Mapping[str, str]) -> Place:
    """Return which server is meant."""
    if data_dir is not None:
        local = local_place(data_dir, server)
        return evolve(local, asked_for=True)
    server = server or environ.get(SERVER_VARIABLE)
    if server:
        return _known(server)
    if environ.get(DATA_VARIABLE):
        return local_place(Path(environ[DATA_VARIABLE]))
    profile = read_profiles().get()
    if profile is not None:
        return _place(profile)
    if (development_directory() / ADDRESS_FILE).exists():
        return local_place(development_directory())
    raise InvalidRequest(
        "nothing says which server is meant",
        hint="Give `--server URL` or `--data-dir DIR` (or `KHONSU_SERVER`, `KHONSU_DATA_DIR`), log in with "
        "`khonsu login URL`, or start one for yourself with `khonsu dev`",
    )


def local_place(data_dir: Path, server: str | None = None) -> Place:
    """Return the server on a data directory of this machine.

    Raises:
        Unreachable: No server runs on it.
        NotAllowed: It is not for this user.

    """
    where = f"the server on {data_dir}"
    start = f"Start it with `khonsu server --data-dir {data_dir}`"
    if not data_dir.is_dir():
        raise Unreachable(where, "there is no such directory", hint=start)
    try:
        address = server or (data_dir / ADDRESS_FILE).read_text(encoding="utf-8").strip()
        with PrivateDirectory(data_dir) as files:
            token = files.read(TOKEN_FILE)
    except FileNotFoundError:
        raise Unreachable(where, "it does not run", hint=start) from None
    except PermissionError as error:
        hint = f"Run as its owner, or log in: `khonsu login URL --fingerprint ...` ({error.filename})"
        raise NotAllowed(f"{data_dir} is not for this user", hint=hint) from None
    return Place(
        server=address,
        ca=data_dir / CA_FILE,
        token=None if token is None else Secret(token.decode("utf-8", "replace").strip()),
    )


def _known(server: str) -> Place:
    profile = read_profiles().of_server(server)
    return _place(profile) if profile is not None else Place(server=server)


def _place(profile: Profile) -> Place:
    return Place(server=profile.server, ca=profile.ca, token=Secret(profile.token))
