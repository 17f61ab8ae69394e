from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from khonsu.agent.layout import Layout, own
from khonsu.env import SystemEnv
from khonsu.errors import Conflict, UnsafeFile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.anyio
async def test_a_data_directory_has_one_agent(tmp_path: Path) -> None:
    """A second agent on it is refused at once, and told who has it; afterwards it is free again."""
    root = tmp_path / "deep" / "home"
    async with own(root, SystemEnv()) as layout:
        assert layout.root == root
        with pytest.raises(Conflict, match=f"process {os.getpid()}"):
            async with own(root, SystemEnv()):
                pass
    async with own(root, SystemEnv()):
        pass
    assert root.stat().st_mode & 0o777 == 0o711


@pytest.mark.anyio
async def test_a_place_that_cannot_be_used(tmp_path: Path) -> None:
    """The message names it and says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsafeFile, match="may write to"):
        async with own(tmp_path / "file" / "home", SystemEnv()):
            pass


def test_what_is_the_tasks_and_what_is_not(tmp_path: Path) -> None:
    """A task's folder is its own; logs and the files of attempts are closed to it."""
    layout = Layout(tmp_path)
    layout.allocations.mkdir()
    for attempt in (1, 2):
        layout.make_task("a1", "web", attempt, None)
    assert layout.task("a1", "web") == tmp_path / "allocations" / "a1" / "web"
    assert layout.task("a1", "web").stat().st_mode & 0o777 == 0o755
    assert layout.inner("a1").stat().st_mode & 0o777 == 0o700
    assert layout.attempts("a1") == (layout.attempt("a1", "web", 1), layout.attempt("a1", "web", 2))
    assert layout.tasks("a1") == ("web",)
    assert layout.kept() == ("a1",)
    assert layout.attempts("nothing") == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_task_of_another_user_owns_its_folder(tmp_path: Path) -> None:
    """The folder belongs to the user that the task runs as."""
    layout = Layout(tmp_path)
    layout.allocations.mkdir()
    layout.make_task("a1", "web", 1, 12345)
    assert layout.task("a1", "web").stat().st_uid == 12345
    assert layout.inner("a1").stat().st_uid == 0


@pytest.mark.anyio
async def test_a_full_disk_keeps_no_agent_from_its_folder(tmp_path: Path) -> None:
    """The lock holds also where its number cannot be written."""
    async with own(tmp_path, SystemEnv()):
        pass
    (tmp_path / "lock").chmod(0o644)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        async with own(tmp_path, SystemEnv()):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
            with pytest.raises(Conflict):
                async with own(tmp_path, SystemEnv()):
                    pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
