"""The cache's directory: what blocks. Everything here runs on a thread.

    objects/DIGEST      a whole artifact, named by its SHA-256; written elsewhere, made durable, then moved here
    parts/KEY           a download on its way, or one that stopped halfway
    urls.json           for addresses without a digest: which object was there, and of which version
    lock                held while a cache has the directory open

Whatever is killed at any point leaves a directory that the next start can read: `objects` holds whole ones only.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import asdict, frozen

from khonsu.artifacts.incoming import Validator
from khonsu.artifacts.part import Part
from khonsu.env import Env
from khonsu.errors import ArtifactError
from khonsu.security.files import DIRECTORY_MODE, FILE_MODE, PrivateDirectory
from khonsu.security.trees import remove_tree

OBJECT_MODE: Final = 0o400

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@frozen
class Known:
    """What was last found at an address without a digest."""

    sha256: str
    validator: Validator


@frozen
class Found:
    """What a directory held when it was opened: sizes in bytes, least recently used first."""

    lock_fd: int
    objects: dict[str, int]
    parts: dict[str, int]
    known: dict[str, Known]


def objects_of(directory: Path) -> Path:
    """Return where whole artifacts are."""
    return directory / "objects"


def parts_of(directory: Path) -> Path:
    """Return where downloads on their way are."""
    return directory / "parts"


def open_directory(directory: Path) -> Found:
    """Lock a directory, and put away what a killed process left half done.

    Raises:
        ArtifactError: It is in use.
        UnsafeFile: Others may write into it.

    """
    with PrivateDirectory(directory) as files:
        lock_fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in (objects_of(directory), parts_of(directory)):
                folder.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            objects = _scan(objects_of(directory))
            # A part of an address without a digest cannot be trusted after a crash of the machine: nothing would
            # tell that its end was never written.
            parts = _scan(parts_of(directory))
            known = _read_known(files.read("urls.json"), objects)
        except BlockingIOError:
            os.close(lock_fd)
            hint = "Give each agent a data directory of its own"
            raise ArtifactError(f"the cache {directory} is in use by another agent", hint=hint) from None
        except BaseException:
            os.close(lock_fd)
            raise
    return Found(lock_fd, objects, parts, known)


def keep(part: Part, directory: Path, env: Env) -> None:
    """Make a part durable and move it to where only whole artifacts are."""
    objects = objects_of(directory)
    path = objects / part.digest()
    part.sync(env.fsync)
    part.path.rename(path)
    # Last: a part must stay writable for whoever goes on with it after a kill.
    path.chmod(OBJECT_MODE)
    fd = os.open(objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        env.fsync(fd)
    finally:
        os.close(fd)


def remove(paths: Iterable[Path]) -> None:
    """Remove files, if they are there."""
    for path in paths:
        path.unlink(missing_ok=True)


def write_known(directory: Path, known: Mapping[str, Known], env: Env) -> None:
    """Remember what was found at addresses without a digest."""
    with PrivateDirectory(directory, env.fsync) as files:
        files.write("urls.json", json.dumps({key: asdict(value) for key, value in known.items()}).encode())


def _scan(directory: Path) -> dict[str, int]:
    """Return the sizes of the files named by a digest, least recently used first; remove everything else."""
    found: list[tuple[int, str, int]] = []
    for entry in os.scandir(directory):
        if _DIGEST.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            found.append((status.st_mtime_ns, entry.name, status.st_size))
        elif entry.is_dir(follow_symlinks=False):
            remove_tree(Path(entry.path))
        else:
            Path(entry.path).unlink()
    return {name: size for _, name, size in sorted(found)}


def _read_known(data: bytes | None, objects: Mapping[str, int]) -> dict[str, Known]:
    """Return what was found at addresses; what cannot be read is forgotten, since it can be asked for again."""
    known: dict[str, Known] = {}
    try:
        for key, value in json.loads(data or b"{}").items():
            if value["sha256"] in objects:
                known[key] = Known(value["sha256"], Validator(**value["validator"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
    return known
