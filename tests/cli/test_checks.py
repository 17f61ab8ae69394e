"""What `khonsu doctor` finds, and what it says to do."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from attrs import evolve

from khonsu.cli import checks
from khonsu.cli.running import Dial
from khonsu.core.records import Time
from khonsu.core.results import SystemStatus
from khonsu.core.revision import ZERO
from khonsu.env import SystemEnv

pytestmark = pytest.mark.anyio

STATUS = SystemStatus(
    cluster="c", version="1", protocol=1, term=1, revision=ZERO, now=Time(0.0), nodes_ready=1, nodes_down=0, jobs=0,
    allocations_live=0,
)  # fmt: skip


def test_secrets_that_others_can_read_are_found(data_dir: Path) -> None:
    """A file with a secret, and the directory itself, must be for their owner."""
    data_dir.chmod(0o700)
    assert checks.permissions(data_dir).status == "ok"
    (data_dir / "ca.key").write_text("key")
    (data_dir / "ca.key").chmod(0o640)
    found = checks.permissions(data_dir)
    assert (found.status, found.advice) == ("wrong", f"Run: chmod 600 {data_dir / 'ca.key'}")
    data_dir.chmod(0o777)
    assert "chmod 700" in checks.permissions(data_dir).advice
    assert checks.permissions(data_dir / "nothing").status == "wrong"


def test_a_database_that_is_none_is_found(data_dir: Path) -> None:
    """A missing state file is fine before the first start; a foreign or damaged one is told, and left as it is."""
    assert checks.database(data_dir).status == "ok"
    for content in (b"not a database" * 100, b"short"):
        (data_dir / "state.db").write_bytes(content)
        assert checks.database(data_dir).status == "wrong"
        assert (data_dir / "state.db").read_bytes() == content


def test_a_port_that_is_taken_is_found() -> None:
    """A server could not listen where another program does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = checks.port(f"127.0.0.1:{taken.getsockname()[1]}")
        assert (found.status, "ss -ltnp" in found.advice) == ("wrong", True)
    assert checks.port("127.0.0.1:0").status == "ok"
    assert checks.port("nowhere").status == "wrong"


def test_a_disk_that_is_full_is_found(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is told before it is none."""
    assert checks.disk(data_dir).check == "disk"
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert checks.disk(data_dir).status == "wrong"


def test_clocks_are_compared() -> None:
    """A clock that is off from the control plane's is told; without one, only an impossible one."""
    env = SystemEnv()
    nothing = checks.Reached(checks.Finding("control plane", "wrong", "away"))
    assert checks.clock(nothing, env).status == "ok"
    near = evolve(nothing, status=STATUS, skew_seconds=-0.2)
    assert checks.clock(near, env).status == "ok"
    assert checks.clock(evolve(near, skew_seconds=-3600.0), env).status == "wrong"
    env.now = lambda: 3600.0  # type: ignore[method-assign]
    assert checks.clock(nothing, env).status == "wrong"


def test_nodes_that_are_away_are_told() -> None:
    """No node, or one that is down, is worth a word."""
    assert checks.nodes(STATUS).status == "ok"
    assert checks.nodes(evolve(STATUS, nodes_down=1)).status == "warning"
    assert "invite" in checks.nodes(evolve(STATUS, nodes_ready=0)).advice


async def test_what_cannot_be_reached_is_told(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No choice of a server is a warning; one that does not answer is wrong."""
    monkeypatch.setenv("HOME", str(data_dir))
    env = SystemEnv()
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert (await checks.reach(Dial(), env)).finding.status == "warning"
    away = await checks.reach(Dial(data_dir=data_dir), env)
    assert (away.finding.status, "khonsu server" in away.finding.advice) == ("wrong", True)
    assert (await checks.reach(Dial(server="https://127.0.0.1:1"), env)).finding.status == "wrong"


def test_the_directory_that_is_meant_is_found(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option comes before the variable; a server elsewhere has no directory here."""
    monkeypatch.setenv("HOME", str(data_dir))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert checks.data_directory(Dial()) is None
    monkeypatch.setenv("KHONSU_DATA_DIR", str(data_dir))
    assert checks.data_directory(Dial()) == data_dir
    assert checks.data_directory(Dial(data_dir=Path(os.devnull))) == Path(os.devnull)
    assert checks.data_directory(Dial(server="https://khonsu.example")) is None
