"""Programs: where a command is, and for which machine it was made."""

from __future__ import annotations

import os
import platform
import stat
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from khonsu.errors import DriverError

HEADER_BYTES: Final = 64
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ELF_MACHINES: Final = {
    0x03: "386",
    0x14: "ppc",
    0x15: "ppc64",
    0x16: "s390x",
    0x28: "arm",
    0x3E: "amd64",
    0xB7: "arm64",
    0xF3: "riscv64",
    0x102: "loong64",
}
_ELF_SYSTEMS: Final = {9: "freebsd", 12: "openbsd"}
_MACHO_MACHINES: Final = {0x0100_0007: "amd64", 0x0100_000C: "arm64", 7: "386", 12: "arm"}
_MACHO_MAGICS: Final = {
    b"\xcf\xfa\xed\xfe": "<",
    b"\xce\xfa\xed\xfe": "<",
    b"\xfe\xed\xfa\xcf": ">",
    b"\xfe\xed\xfa\xce": ">",
}
_FAT_MAGIC: Final = b"\xca\xfe\xba\xbe"
_FAT_MACHINES_MAX: Final = 8
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}


def node_platform() -> str:
    """Return the platform of this machine, such as `linux/arm64`."""
    machine = platform.machine().lower()
    return f"{'darwin' if sys.platform == 'darwin' else sys.platform}/{_ARCHITECTURES.get(machine, machine)}"


def program_platforms(header: bytes) -> tuple[str, ...]:
    """Return the platforms that a program was made for, by its first bytes; none where they do not tell."""
    if header.startswith(b"\x7fELF") and len(header) >= HEADER_BYTES // 2:
        order = ">" if header[5] == 2 else "<"
        (machine,) = struct.unpack_from(order + "H", header, 18)
        return (f"{_ELF_SYSTEMS.get(header[7], 'linux')}/{_ELF_MACHINES.get(machine, f'machine {machine}')}",)
    if header[:4] in _MACHO_MAGICS and len(header) >= 8:
        (machine,) = struct.unpack_from(_MACHO_MAGICS[header[:4]] + "I", header, 4)
        return (f"darwin/{_MACHO_MACHINES.get(machine, f'machine {machine}')}",)
    if header.startswith(_FAT_MAGIC) and len(header) >= 8:
        (count,) = struct.unpack_from(">I", header, 4)
        # A Java class begins in the same way; its version is larger than any number of machines.
        places = range(8, min(8 + 20 * count, len(header) - 3), 20) if count <= _FAT_MACHINES_MAX else ()
        machines = [struct.unpack_from(">I", header, place)[0] for place in places]
        return tuple(f"darwin/{_MACHO_MACHINES.get(machine, f'machine {machine}')}" for machine in machines)
    if header.startswith(b"MZ"):
        return ("windows",)
    return ()


def why_not_for_this_machine(path: Path | str) -> str:
    """Return what is wrong with a program that the kernel does not take, in words. Blocks."""
    ours = node_platform()
    try:
        with Path(path).open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError:
        header = b""
    platforms = program_platforms(header)
    if platforms and ours not in platforms:
        return f"it is for {' and '.join(platforms)}, and this node is {ours}"
    if not header:
        return "it is empty, or cannot be read"
    if platforms:
        return f"it is for {ours}, but damaged or incomplete"
    return "it is no binary, and has no first line such as #!/bin/sh"


def find_command(command: str, *, directory: Path, env: Mapping[str, str]) -> str:
    """Return the path of a command. Blocks, for as long as it takes to look at a few file names.

    Args:
        command: An absolute path; a path relative to the task's directory; or a name, which is looked for on the
            task's own `PATH`, and then in its directory, where artifacts are.
        directory: The task's directory.
        env: The task's environment.

    Raises:
        DriverError: It is not there, or is not executable; says where it was looked for.

    """
    if not command or "\0" in command:
        raise DriverError(f"{command!r} is no command")
    if "/" in command:
        return _usable(directory / command, command)
    path = env.get("PATH", DEFAULT_PATH)
    refused: DriverError | None = None
    for folder in [*path.split(os.pathsep), str(directory)]:
        candidate = directory / folder / command  # an empty or relative folder is the task's own
        try:
            return _usable(candidate, command)
        except DriverError as error:
            if candidate.exists():
                refused = refused or error
    raise refused or DriverError(
        f"there is no command {command!r} on the task's PATH ({path}) or in its directory",
        hint="Install it on the node, name it by its whole path, or bring it as an artifact",
    )


def _usable(path: Path, command: str) -> str:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        where = "" if command.startswith("/") else f" in the task's directory {path.parent}"
        raise DriverError(f"there is no command {command}{where}") from None
    except OSError as error:
        raise DriverError(f"the command {path} cannot be used: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DriverError(f"the command {path} is {'a folder' if path.is_dir() else 'not a plain file'}")
    if not status.st_mode & 0o111:
        raise DriverError(f"the command {path} is not executable", hint=f"Run on the node: chmod +x {path}")
    return str(path)
