"""Profiles: the control planes that somebody has logged in to, in a private file of theirs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, field, frozen

from khonsu.core.codec import dumps, from_json, loads
from khonsu.core.names import nearest
from khonsu.errors import InvalidRequest, NotFound, UnsafeFile
from khonsu.security.files import PrivateDirectory

FILE = "profiles.json"


@frozen(kw_only=True)
class Profile:
    """A control plane: where it is, whom to trust, and the credential."""

    server: str
    ca: str = field(repr=False)
    """The certificate of its authority (PEM)."""
    token: str = field(repr=False)


@frozen(kw_only=True)
class Profiles:
    """All profiles by name, and which one is in use."""

    current: str | None = None
    profiles: Mapping[str, Profile] = field(factory=dict)

    def get(self, name: str | None = None) -> Profile | None:
        """Return a profile; without a name the one in use, or None where there is none.

        Raises:
            NotFound: There is none of that name.

        """
        if name is None:
            name = self.current
            if name is None:
                return None
        found = self.profiles.get(name)
        if found is None:
            hint = (
                f"There are: {', '.join(sorted(self.profiles))}" if self.profiles else "Log in with `khonsu login URL`"
            )
            raise NotFound("profile", name, nearest=nearest(name, self.profiles), hint=hint)
        return found

    def of_server(self, server: str) -> Profile | None:
        """Return the profile of a server: the one in use before others."""
        mine = sorted(self.profiles, key=lambda name: (name != self.current, name))
        return next((self.profiles[name] for name in mine if self.profiles[name].server == server.rstrip("/")), None)

    def having(self, name: str, profile: Profile) -> Profiles:
        """Return these with one more, which is in use."""
        return evolve(self, current=name, profiles={**self.profiles, name: profile})

    def using(self, name: str) -> Profiles:
        """Return these with another one in use.

        Raises:
            NotFound: There is none of that name.

        """
        self.get(name)
        return evolve(self, current=name)


def config_directory() -> Path:
    """Return where the settings of this user are: `$XDG_CONFIG_HOME/khonsu`, or `~/.config/khonsu`."""
    return _home("XDG_CONFIG_HOME", ".config") / "khonsu"


def development_directory() -> Path:
    """Return where `khonsu dev` keeps its data: `$XDG_DATA_HOME/khonsu/dev`, or `~/.local/share/khonsu/dev`."""
    return _home("XDG_DATA_HOME", ".local/share") / "khonsu" / "dev"


def read_profiles(directory: Path | None = None) -> Profiles:
    """Return the profiles of this user; none are as good as no file.

    Raises:
        UnsafeFile: Others can read the file, or it holds something else.

    """
    directory = directory if directory is not None else config_directory()
    if not directory.is_dir():
        return Profiles()
    with PrivateDirectory(directory) as files:
        data = files.read(FILE)
    if data is None:
        return Profiles()
    try:
        return from_json(Profiles, loads(data))
    except InvalidRequest as error:
        raise UnsafeFile(
            str(directory / FILE), f"holds no profiles: {error.message}", hint="Remove it and log in again"
        ) from None


def write_profiles(profiles: Profiles, directory: Path | None = None) -> None:
    """Write the profiles of this user, readable by nobody else. Blocks until they are on the disk."""
    with PrivateDirectory(directory if directory is not None else config_directory()) as files:
        files.write(FILE, dumps(profiles).encode() + b"\n")


def _home(variable: str, default: str) -> Path:
    """Return a directory of the XDG base directory specification; a relative path there is to be ignored."""
    given = os.environ.get(variable, "")
    return Path(given) if given.startswith("/") else Path.home() / default
