"""Which server is meant, and whom to trust: arguments before variables before profiles."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from khonsu.client.profiles import (
    FILE,
    Profile,
    Profiles,
    config_directory,
    development_directory,
    read_profiles,
    write_profiles,
)
from khonsu.client.resolve import resolve
from khonsu.env import SystemEnv
from khonsu.errors import InvalidRequest, NotAllowed, NotFound, Unreachable, UnsafeFile
from khonsu.security.authority import Authority

URL = "https://khonsu.example:4747"
OTHER = "https://other.example:4747"


@pytest.fixture(scope="module")
def ca() -> str:
    """Return the certificate of some authority."""
    return Authority.new(SystemEnv()).certificate_pem


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a home of its own."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def server(data_dir: Path, ca: str) -> Path:
    """Return the data directory of a server that runs."""
    return serving(data_dir, ca)


def serving(directory: Path, ca: str) -> Path:
    """Write what a running server keeps in its data directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ca.pem").write_text(ca)
    (directory / "operator.token").write_text("local-token\n")
    (directory / "operator.token").chmod(0o600)
    (directory / "server.address").write_text("https://127.0.0.1:4747\n")
    return directory


def resolved(
    server: str | None = None, token: str | None = None, ca: str | None = None, data_dir: Path | None = None
) -> tuple[str, str | None, str | None]:
    """Return the URL, the credential and the authority that come of some arguments."""
    transport, credential = resolve(server, token, ca, data_dir=data_dir)
    return transport.url, None if credential is None else credential.reveal(), transport.authority


def test_a_data_directory_has_all_that_is_needed(server: Path, ca: str) -> None:
    """Address, credential and authority of a server on this machine are in its directory."""
    assert resolved(data_dir=server) == ("https://127.0.0.1:4747", "local-token", ca)


def test_an_argument_beats_every_variable(server: Path, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a data directory given, no variable matters."""
    for name, value in (("SERVER", OTHER), ("TOKEN", "variable"), ("CA", "/nothing"), ("DATA_DIR", "/nothing")):
        monkeypatch.setenv(f"KHONSU_{name}", value)
    assert resolved(data_dir=server) == ("https://127.0.0.1:4747", "local-token", ca)
    assert resolved(URL, "mine", ca) == (URL, "mine", ca)


def test_variables_are_for_programs(tmp_path: Path, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, credential and authority can be told by variables."""
    (tmp_path / "ca.pem").write_text(ca)
    monkeypatch.setenv("KHONSU_SERVER", URL)
    monkeypatch.setenv("KHONSU_TOKEN", "variable")
    monkeypatch.setenv("KHONSU_CA", str(tmp_path / "ca.pem"))
    assert resolved() == (URL, "variable", ca)


def test_a_variable_names_a_data_directory(server: Path, ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`KHONSU_DATA_DIR` is as good as the option; the credential may be another."""
    monkeypatch.setenv("KHONSU_DATA_DIR", str(server))
    assert resolved() == ("https://127.0.0.1:4747", "local-token", ca)
    monkeypatch.setenv("KHONSU_TOKEN", "variable")
    assert resolved()[1] == "variable"


def test_the_profile_in_use_comes_after_the_variables(ca: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logged in need not say anything; a known server brings its credential along."""
    known = Profiles().having("other", Profile(server=OTHER, ca=ca, token="t2"))
    write_profiles(known.having("home", Profile(server=URL, ca=ca, token="t1")))
    assert resolved() == (URL, "t1", ca)
    assert resolved(OTHER) == (OTHER, "t2", ca)
    monkeypatch.setenv("KHONSU_SERVER", OTHER)
    assert resolved() == (OTHER, "t2", ca)


def test_the_server_of_khonsu_dev_is_found_at_last(ca: str) -> None:
    """Where nothing else is chosen, a development server that runs is meant."""
    serving(development_directory(), ca)
    assert resolved()[0] == "https://127.0.0.1:4747"


def test_nothing_to_go_by_is_told_with_what_to_do() -> None:
    """Without any hint the message names all ways to give one."""
    with pytest.raises(InvalidRequest) as caught:
        resolved()
    for way in ("--server", "--data-dir", "KHONSU_SERVER", "khonsu login", "khonsu dev"):
        assert way in caught.value.hint


def test_a_server_that_does_not_run_is_unreachable(server: Path, tmp_path: Path) -> None:
    """A directory without a running server, or none at all, is told with how to start it."""
    (server / "server.address").unlink()
    for directory in (server, tmp_path / "nothing"):
        with pytest.raises(Unreachable) as caught:
            resolved(data_dir=directory)
        assert f"khonsu server --data-dir {directory}" in caught.value.hint


def test_a_token_that_others_can_read_is_refused(server: Path) -> None:
    """A credential that others can read is worth nothing."""
    (server / "operator.token").chmod(0o644)
    with pytest.raises(UnsafeFile, match="0644"):
        resolved(data_dir=server)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_of_somebody_else_is_not_allowed(server: Path) -> None:
    """What this user may not read is told as that, with the other way."""
    (server / "operator.token").chmod(0)
    with pytest.raises(NotAllowed) as caught:
        resolved(data_dir=server)
    assert "khonsu login" in caught.value.hint


def test_profiles_are_private(ca: str) -> None:
    """The file with the credentials is for its owner only, and its values do not show themselves."""
    profile = Profile(server=URL, ca=ca, token="hidden")
    write_profiles(Profiles().having("home", profile))
    assert stat.S_IMODE((config_directory() / FILE).stat().st_mode) == 0o600
    assert "hidden" not in repr(profile)
    assert read_profiles().get() == profile


def test_profiles_of_others_are_refused(ca: str) -> None:
    """A file that others can read, or that holds something else, is not used."""
    write_profiles(Profiles().having("home", Profile(server=URL, ca=ca, token="t")))
    file = config_directory() / FILE
    file.chmod(0o640)
    with pytest.raises(UnsafeFile):
        read_profiles()
    file.write_text('{"profiles": 7}')
    file.chmod(0o600)
    with pytest.raises(UnsafeFile, match="holds no profiles"):
        read_profiles()


def test_an_unknown_profile_is_told_with_the_known_ones(ca: str) -> None:
    """A mistyped name is told with the nearest one."""
    known = Profiles().having("home", Profile(server=URL, ca=ca, token="t"))
    with pytest.raises(NotFound) as caught:
        known.using("hom")
    assert (caught.value.nearest, "home" in caught.value.hint) == ("home", True)
    with pytest.raises(NotFound) as caught:
        Profiles().using("home")
    assert "khonsu login" in caught.value.hint


def test_the_directories_follow_the_standard(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG variables move settings and data; relative paths there do not count."""
    assert config_directory() == home / ".config" / "khonsu"
    assert development_directory() == home / ".local" / "share" / "khonsu" / "dev"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert config_directory() == Path("/elsewhere/khonsu")
    assert development_directory() == home / ".local" / "share" / "khonsu" / "dev"
