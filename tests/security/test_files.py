from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from khonsu.errors import UnsafeFile
from khonsu.security.files import FILE_BYTES_MAX, PUBLIC_MODE, PrivateDirectory


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_makes_the_directory_and_files_for_the_owner_only(tmp_path: Path) -> None:
    """What is written is private, whatever the umask says."""
    before = os.umask(0)
    try:
        with PrivateDirectory(tmp_path / "a" / "b") as files:
            files.write("key", b"1")
            files.create("other", b"2")
    finally:
        os.umask(before)
    assert _mode(tmp_path / "a" / "b") == 0o700
    assert _mode(tmp_path / "a" / "b" / "key") == 0o600
    assert _mode(tmp_path / "a" / "b" / "other") == 0o600


def test_a_public_file_is_readable_under_a_strict_umask(tmp_path: Path) -> None:
    """A file meant for everybody gets its mode even where the umask would take it away."""
    before = os.umask(0o077)
    try:
        with PrivateDirectory(tmp_path) as files:
            files.write("ca.pem", b"1", mode=PUBLIC_MODE)
            assert files.read("ca.pem", public=True) == b"1"
    finally:
        os.umask(before)
    assert _mode(tmp_path / "ca.pem") == 0o644


def test_write_replaces_and_create_does_not(tmp_path: Path) -> None:
    """A write replaces a file whole; a creation leaves what is there."""
    with PrivateDirectory(tmp_path) as files:
        assert files.read("a") is None
        files.write("a", b"one")
        files.write("a", b"two")
        assert files.create("a", b"three") is False
        assert files.read("a") == b"two"
        assert files.create("b", b"four") is True
        assert files.read("b") == b"four"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_stale_temporary_file_is_no_obstacle(tmp_path: Path) -> None:
    """What a killed process with our number left behind is overwritten."""
    (tmp_path / f".a.{os.getpid()}.tmp").write_bytes(b"half")
    with PrivateDirectory(tmp_path) as files:
        files.write("a", b"whole")
        assert files.read("a") == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link under the passing name is replaced, not written through."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f".a.{os.getpid()}.tmp").symlink_to(outside)
    with PrivateDirectory(tmp_path / "d") as files:
        files.write("a", b"new")
    assert outside.read_bytes() == b"precious"
    assert (tmp_path / "d" / "a").read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A write that fails changes nothing and leaves nothing behind."""
    with PrivateDirectory(tmp_path) as files:
        files.write("a", b"old")
        with pytest.raises(TypeError):
            files.write("a", object())  # type: ignore[arg-type]
        assert files.read("a") == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    """Any bit for group or others is one too many, and the message has the command that mends it."""
    path = tmp_path / "key"
    path.write_bytes(b"1")
    path.chmod(mode)
    with PrivateDirectory(tmp_path) as files, pytest.raises(UnsafeFile, match=f"mode {mode:04o}.*chmod 600 {path}"):
        files.read("key")


def test_a_public_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """Everybody may read a public file, nobody else may write it."""
    (tmp_path / "ca.pem").write_bytes(b"1")
    (tmp_path / "ca.pem").chmod(0o664)
    with PrivateDirectory(tmp_path) as files, pytest.raises(UnsafeFile, match="chmod 644"):
        files.read("ca.pem", public=True)


def test_a_link_is_refused(tmp_path: Path) -> None:
    """A symbolic link is not read through."""
    (tmp_path / "key").symlink_to("/etc/hostname")
    with PrivateDirectory(tmp_path) as files, pytest.raises(UnsafeFile, match="symbolic link"):
        files.read("key")


def test_a_fifo_or_directory_is_refused_without_waiting(tmp_path: Path) -> None:
    """What is not a plain file is refused, and a FIFO does not block."""
    os.mkfifo(tmp_path / "key", 0o600)
    (tmp_path / "sub").mkdir()
    with PrivateDirectory(tmp_path) as files:
        for name in ("key", "sub"):
            with pytest.raises(UnsafeFile, match="not a plain file"):
                files.read(name)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """Reading has a limit."""
    with PrivateDirectory(tmp_path) as files:
        files.write("key", b"0" * (FILE_BYTES_MAX + 1))
        with pytest.raises(UnsafeFile, match="larger"):
            files.read("key")


def test_a_directory_that_everybody_can_write_is_refused(tmp_path: Path) -> None:
    """Nobody else may put files into the directory."""
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafeFile, match="chmod o-w"), PrivateDirectory(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Keys that somebody else owns are not ours."""
    with PrivateDirectory(tmp_path) as files:
        files.write("key", b"1")
        os.chown(tmp_path / "key", 12345, -1)
        with pytest.raises(UnsafeFile, match="user 12345"):
            files.read("key")
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(UnsafeFile, match="user 12345"), PrivateDirectory(tmp_path):
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_only_plain_names_are_taken(tmp_path: Path, name: str) -> None:
    """A name never leaves the directory."""
    with PrivateDirectory(tmp_path) as files:
        for use in (files.read, lambda name: files.write(name, b""), lambda name: files.create(name, b"")):
            with pytest.raises(ValueError, match="not the name of a file"):
                use(name)


def test_of_many_processes_exactly_one_creates(tmp_path: Path) -> None:
    """When several processes make a file at once, one wins and its bytes stay."""
    program = (
        "import sys; from khonsu.security.files import PrivateDirectory\n"
        "sys.stdin.read()\n"
        "with PrivateDirectory(sys.argv[1]) as files: print(files.create('a', sys.argv[2].encode() * 1000))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(6)
    ]
    answers = [process.communicate()[0].strip() for process in processes]
    assert sorted(answers) == ["False"] * 5 + ["True"]
    assert (tmp_path / "a").read_bytes() == str(answers.index("True")).encode() * 1000
    assert os.listdir(tmp_path) == ["a"]
