"""The command line without a server: its tree, wrong usage, exit codes, and what goes to which stream."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from khonsu.cli import main
from khonsu.cli.running import EXIT_CODES, exit_code_of
from khonsu.cli.times import span
from khonsu.errors import KhonsuError, StoreError, Unauthenticated, all_errors

JOB = 'name = "web"\ndriver = "binary"\n[config]\ncommand = "true"\n'
NOWHERE = "https://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, which is also the home of whoever runs the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))


def khonsu(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments)


def commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """Return the paths of all commands below a group."""
    context = click.Context(group)
    found: list[tuple[str, ...]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found += commands(command, *path, name) if isinstance(command, click.Group) else [(*path, name)]
    return found


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    """Each command can be loaded, and says what it does and what its options are."""
    result = khonsu(*path, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: khonsu")
    assert "Options:" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--version",), 0),
        (("jop",), 2),
        (("job", "rum"), 2),
        (("job", "scale", "web", "many"), 2),
        (("job", "run"), 2),
        (("job", "run", "web.toml", "--", "true"), 2),
        (("job", "run", "web.toml", "--count", "3"), 2),
        (("job", "list"), 2),
        (("job", "list", "--exit-code"), 125),
        (("job", "list", "--data-dir", "not-there"), 6),
        (("job", "validate", "not-there.toml"), 4),
        (("context", "use", "home"), 4),
        (("run", "--exit-code", "--data-dir", "not-there", "--", "true"), 125),
        (("server", "--data-dir", "d", "--listen", "nowhere:port"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_codes(arguments: tuple[str, ...], code: int) -> None:
    """The exit code tells what kind of thing went wrong, and stderr says what."""
    result = khonsu(*arguments)
    assert result.exit_code == code
    if code:
        assert result.stdout == ""
        assert result.stderr != ""


def test_a_mistyped_command_has_its_nearest_name() -> None:
    """An unknown verb is told with the one that was probably meant."""
    assert "status" in khonsu("job", "statsu").stderr


def test_errors_are_problem_documents_where_json_is_asked_for() -> None:
    """With `--json` stdout stays empty and stderr holds one problem document."""
    result = khonsu("job", "list", "--json", "--data-dir", "not-there")
    problem = json.loads(result.stderr)
    assert (result.exit_code, result.stdout) == (6, "")
    assert (problem["type"], problem["title"], problem["status"]) == ("unreachable", "Unreachable", 503)
    assert problem["hint"]


def test_wrong_usage_is_a_problem_document_where_json_is_asked_for() -> None:
    """A program that gives a wrong option can read what is wrong."""
    result = khonsu("job", "list", "--json", "--colour")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["type"] == "usage"


def test_errors_have_their_hint_for_people() -> None:
    """Without `--json`, an error says what to do."""
    result = khonsu("job", "list")
    assert result.stderr.startswith("error: ")
    assert "khonsu dev" in result.stderr


def test_validate_tells_every_mistake(tmp_path: Path) -> None:
    """A wrong job is refused with all that is wrong in it, without a server."""
    file = tmp_path / "web.toml"
    file.write_text("cuont = 2\n" + JOB + '[resources]\ncpu = "much"\n', encoding="utf-8")
    result = khonsu("job", "validate", str(file), "--json")
    assert result.exit_code == 2
    paths = {problem["path"] for problem in json.loads(result.stderr)["problems"]}
    assert paths == {"cuont", "groups[0].tasks[0].resources.cpu"}
    file.write_text(JOB, encoding="utf-8")
    assert khonsu("job", "validate", str(file)).exit_code == 0


def test_init_writes_a_job_that_is_valid_and_never_over_another() -> None:
    """The file to start from can be submitted as it stands, and a file that is there is left alone."""
    assert khonsu("job", "init", "--name", "shop", "shop.toml").exit_code == 0
    assert tomllib.loads(Path("shop.toml").read_text(encoding="utf-8"))["name"] == "shop"
    assert khonsu("job", "validate", "shop.toml").exit_code == 0
    assert khonsu("job", "init", "shop.toml").exit_code != 0


def test_schema_is_json() -> None:
    """The schema for editors is a JSON Schema."""
    assert json.loads(khonsu("job", "schema").stdout)["title"] == "Khonsu job file"


def test_print_shows_the_job_of_a_command() -> None:
    """`run --print` submits nothing, and shows a job file that can be kept."""
    result = khonsu("run", "--print", "--name", "hi", "--port", "http=8080", "--", "/bin/echo", "--json", "a b")
    table = tomllib.loads(result.stdout)
    assert result.exit_code == 0
    assert (table["name"], table["type"], table["ports"]) == ("hi", "batch", {"http": 8080})
    assert table["config"] == {"command": "/bin/echo", "args": ["--json", "a b"]}
    Path("hi.toml").write_text(result.stdout, encoding="utf-8")
    assert khonsu("job", "validate", "hi.toml").exit_code == 0


def test_namespace_is_that_of_jobs_that_name_none() -> None:
    """`--namespace` moves a job that names none, and contradicts one that names another."""
    assert 'namespace = "shop"' in khonsu("run", "--print", "--namespace", "shop", "--", "true").stdout
    Path("web.toml").write_text('namespace = "play"\n' + JOB, encoding="utf-8")
    assert 'namespace = "play"' in khonsu("run", "--print", "--namespace", "play", "web.toml").stdout
    assert 'namespace = "play"' in khonsu("run", "--print", "web.toml").stdout
    refused = khonsu("run", "--print", "--namespace", "shop", "web.toml")
    assert (refused.exit_code, "play" in refused.stderr) == (2, True)


def test_no_contexts_are_an_empty_array() -> None:
    """A list is an array even where there is nothing."""
    assert json.loads(khonsu("context", "list", "--json").stdout) == []


def test_every_error_has_an_exit_code() -> None:
    """An error has the code of the nearest class above it, and 1 where the contract names none."""
    codes = {
        kind: exit_code_of(kind.from_facts("what", "", {})) for kind in all_errors().values() if kind in EXIT_CODES
    }
    assert codes == dict(EXIT_CODES)
    assert exit_code_of(Unauthenticated("who?")) == 5
    assert exit_code_of(StoreError("no")) == exit_code_of(KhonsuError("no")) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.4, "59s"), (59.7, "1m00s"), (899.98, "15m00s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_spans_are_told_to_the_nearest_second(seconds: float, text: str) -> None:
    """What is left of a quarter of an hour a moment after it began is a quarter of an hour."""
    assert span(seconds) == text
