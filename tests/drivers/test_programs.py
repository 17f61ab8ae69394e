from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from khonsu.drivers.programs import find_command, node_platform, program_platforms, why_not_for_this_machine
from khonsu.errors import DriverError


def elf(machine: int, *, order: str = "<") -> bytes:
    """Return the beginning of an ELF file."""
    return (
        b"\x7fELF\x02"
        + (b"\x01" if order == "<" else b"\x02")
        + b"\x01" * 10
        + struct.pack(order + "HH", 2, machine)
        + b"\0" * 44
    )


def fat(*machines: int) -> bytes:
    """Return the beginning of a Mach-O file for several machines."""
    return (
        b"\xca\xfe\xba\xbe"
        + struct.pack(">I", len(machines))
        + b"".join(struct.pack(">5I", m, 0, 0, 0, 0) for m in machines)
    )


@pytest.mark.parametrize(
    ("header", "platforms"),
    [
        (elf(0x3E), ("linux/amd64",)),
        (elf(0xB7), ("linux/arm64",)),
        (elf(0x16, order=">"), ("linux/s390x",)),
        (elf(0x999), ("linux/machine 2457",)),
        (b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C), ("darwin/arm64",)),
        (fat(0x01000007, 0x0100000C), ("darwin/amd64", "darwin/arm64")),
        (b"\xca\xfe\xba\xbe\0\0\0\x41" + b"\0" * 40, ()),
        (b"MZ\x90", ("windows",)),
        (b"#!/bin/sh\n", ()),
        (b"\x7fELF", ()),
        (b"", ()),
    ],
)
def test_the_first_bytes_of_a_program_tell_its_platform(header: bytes, platforms: tuple[str, ...]) -> None:
    """ELF and Mach-O files say for which machine they are; others say nothing."""
    assert program_platforms(header) == platforms


def test_this_interpreter_is_for_this_machine() -> None:
    """The platform of the node is that of what runs on it."""
    with Path(sys.executable).open("rb") as file:
        assert node_platform() in program_platforms(file.read(4096))


def test_why_the_kernel_does_not_take_a_program(tmp_path: Path) -> None:
    """The reason names both platforms, or says what the file is instead."""
    program = tmp_path / "program"
    foreign = 0xB7 if node_platform() != "linux/arm64" else 0x3E
    program.write_bytes(elf(foreign))
    found = program_platforms(elf(foreign))[0]
    assert why_not_for_this_machine(program) == f"it is for {found}, and this node is {node_platform()}"
    program.write_bytes(b"echo hello\n")
    assert why_not_for_this_machine(program) == "it is no binary, and has no first line such as #!/bin/sh"
    program.write_bytes(b"")
    assert why_not_for_this_machine(program) == "it is empty, or cannot be read"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of programs and a task's own."""
    programs, task = tmp_path / "bin", tmp_path / "task"
    for folder in (programs, task, task / "sub"):
        folder.mkdir()
    for place in (programs / "tool", task / "mine", task / "sub" / "deep"):
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
    (programs / "plain").write_text("text")
    return programs, task


def test_a_command_is_found(folders: tuple[Path, Path]) -> None:
    """A name is looked for on the task's PATH and in its directory, a path is taken as it is."""
    programs, task = folders
    env = {"PATH": f"/nowhere:{programs}"}
    for command, place in {
        "tool": programs / "tool",
        str(programs / "tool"): programs / "tool",
        "mine": task / "mine",
        "./mine": task / "mine",
        "sub/deep": task / "sub" / "deep",
    }.items():
        assert Path(find_command(command, directory=task, env=env)) == place


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("nothing", "there is no command 'nothing' on the task's PATH (/nowhere:{programs}) or in its directory"),
        ("/not/there", "there is no command /not/there."),
        ("sub/nothing", "there is no command sub/nothing in the task's directory {task}/sub"),
        ("plain", "the command {programs}/plain is not executable. Run on the node: chmod +x {programs}/plain"),
        ("./sub", "the command {task}/sub is a folder"),
        ("sub", "the command {task}/sub is a folder"),
        ("/dev/null", "the command /dev/null is not a plain file"),
        ("mine/x", "there is no command mine/x in the task's directory {task}/mine"),
        ("", "'' is no command"),
        ("a\0b", "'a\\x00b' is no command"),
    ],
)
def test_a_command_that_cannot_be_used(folders: tuple[Path, Path], command: str, message: str) -> None:
    """The message says what is wrong, where it was looked for, and what to do."""
    programs, task = folders
    with pytest.raises(DriverError) as caught:
        find_command(command, directory=task, env={"PATH": f"/nowhere:{programs}"})
    assert f"{caught.value}.".startswith(message.format(programs=programs, task=task))
