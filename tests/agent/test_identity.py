from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from khonsu.agent.identity import FILE, NodeIdentity, check_name, read_identity, write_identity
from khonsu.core.ids import NodeId
from khonsu.core.secret import Secret
from khonsu.env import SystemEnv
from khonsu.errors import InvalidRequest, UnsafeFile

if TYPE_CHECKING:
    from pathlib import Path

ME = NodeIdentity(node=NodeId("n1"), name="home", cluster="c", credential=Secret("kht1.x.y"), authority="PEM")


def test_an_identity_is_kept_in_private(tmp_path: Path) -> None:
    """It is read as it was written, and only its owner can read it."""
    assert read_identity(tmp_path) is None
    write_identity(tmp_path, ME, SystemEnv())
    assert read_identity(tmp_path) == ME
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert "kht1" not in repr(ME)


def test_an_identity_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A credential that others may have seen is not used."""
    write_identity(tmp_path, ME, SystemEnv())
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(UnsafeFile, match="chmod 600"):
        read_identity(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"node": "n"}', '{"node": 1, "name": 2, "cluster": 3, "credential": 4}']
)
def test_a_damaged_identity_says_what_to_do(tmp_path: Path, content: str) -> None:
    """A file that cannot be read is not guessed at."""
    (tmp_path / FILE).write_text(content)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(UnsafeFile, match="join again"):
        read_identity(tmp_path)


def test_a_directory_is_of_one_node(tmp_path: Path) -> None:
    """An agent of another name does not take over a data directory."""
    check_name(ME, "home", tmp_path)
    with pytest.raises(InvalidRequest, match="is that of node home, not of away"):
        check_name(ME, "away", tmp_path)
