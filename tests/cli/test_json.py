"""What `--json` writes: a snapshot of the form of each command's output, against a cluster in this process.

A snapshot is the output with each value replaced by its kind. One that is not there yet is written, and the test fails
so that somebody looks at it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import khonsu
from khonsu.cli import main

SNAPSHOTS = Path(__file__).parent / "snapshots"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

DONE = 'name = "done"\ntype = "batch"\ndriver = "binary"\n[config]\ncommand = "/bin/echo"\nargs = ["hello"]\n'
GONE = DONE.replace("done", "gone")
WEB = """
name = "web"
driver = "binary"
ports = { http = "dynamic" }
update = { healthy_for = "1h", healthy_within = "2h", progress_within = "3h" }
[config]
command = "sleep"
args = ["600"]
"""
HUGE = 'name = "huge"\ndriver = "binary"\nresources = { cpu = 900000 }\n[config]\ncommand = "true"\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a cluster that listens, with finished jobs, a service that is not healthy yet and a job without a place."""
    folder = tmp_path_factory.mktemp("cli")
    listener = khonsu.HTTPListener("127.0.0.1:0")
    with khonsu.LocalCluster(data_dir=folder / "server", listeners=[listener], labels={"disk": "ssd"}) as cluster:
        (folder / "server" / "server.address").write_text(cluster.addresses[0])
        client = cluster.client
        for text in (DONE, GONE):
            client.run(khonsu.loads_jobs(text)[0], timeout="30s").raise_for_status()
        client.submit(khonsu.loads_jobs(WEB)[0])
        with client.events(job="web", types=["allocation-running"]) as events:
            next(events)
        client.submit(khonsu.loads_jobs(HUGE)[0])
        client.wait("huge", placement_timeout=0.0)
        yield folder


@pytest.fixture
def khonsu_json(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs a command with `--json`, in a folder with job files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("KHONSU_DATA_DIR", str(home / "server"))
    for name, text in {"done.toml": DONE, "web.toml": WEB, "huge.toml": HUGE}.items():
        (tmp_path / name).write_text(text)
    return lambda *arguments: CliRunner().invoke(main, [*arguments[:2], "--json", *arguments[2:]])


def kind(value: Any) -> Any:
    """Return the form of a JSON value: keys as they are, values by their kind, of a list the first."""
    match value:
        case dict():
            return {key: kind(item) for key, item in value.items()}
        case list():
            return [kind(item) for item in value[:1]]
        case str():
            return "time" if TIME.fullmatch(value) else "text"
        case bool():
            return "flag"
        case int() | float():
            return "number"
    return None


def check(name: str, result: Result, *, code: int = 0) -> None:
    """Compare the form of an output with its snapshot: a line each for streams, one line for all else."""
    assert result.exit_code == code, result.stderr
    text = result.stdout if code in (0, 3) else result.stderr
    found = [kind(json.loads(line)) for line in text.splitlines()]
    file = SNAPSHOTS / f"{name}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(found[0], indent=2) + "\n", encoding="utf-8")
        pytest.fail(f"{file} was written; look at it, and run the test again")
    assert found[0] == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("job-list", "job list", 0),
        ("job-status", "job status done", 0),
        ("job-status-service", "job status web", 0),
        ("not-found", "job status nothing", 4),
        ("job-history", "job history web", 0),
        ("job-logs", "job logs done", 0),
        ("job-wait", "job wait done", 0),
        ("job-explain", "job explain huge", 0),
        ("job-plan", "job plan huge.toml", 3),
        ("job-validate", "job validate web.toml", 0),
        ("job-run", "job run done.toml", 0),
        ("job-run-detach", "job run web.toml --detach", 0),
        ("job-init", "job init new.toml", 0),
        ("job-init-text", "job init -", 0),
        ("job-run-print", "job run web.toml --print", 0),
        ("node-list", "node list", 0),
        ("node-status", "node status node-0", 0),
        ("node-invite", "node invite --name mac --label disk=ssd", 0),
        ("conflict", "node remove node-0", 1),
        ("alloc-list", "alloc list --job done", 0),
        ("event-watch", "event watch --no-follow --job done", 0),
    ],
)
def test_each_command_has_its_form(khonsu_json: Any, name: str, words: str, code: int) -> None:
    """A name or id is an object, a list an array, a stream an object a line, an error a problem on stderr."""
    result = khonsu_json(*words.split())
    check(name, result, code=code)
    if name.endswith(("list", "history")):
        assert isinstance(json.loads(result.stdout), list)
    if code in (1, 4):
        assert result.stdout == ""


def test_single_copies_have_their_form(khonsu_json: Any) -> None:
    """An allocation is shown by a prefix of its id, with its output and all that the contract names."""
    allocation = json.loads(khonsu_json("alloc", "list", "--job", "done").stdout)[0]
    check("alloc-status", khonsu_json("alloc", "status", allocation["id"][:6]))
    check("alloc-logs", khonsu_json("alloc", "logs", allocation["id"]))
    check("alloc-logs", khonsu_json("job", "logs", allocation["id"][:6]))
    assert khonsu_json("job", "logs", "nothing").exit_code == 4
    keys = "id job namespace version group slot node status desired health ports exit_code tasks"
    assert set(keys.split()) <= set(allocation)
    keys = "name status attempt exit_code signal out_of_memory pid started_at finished_at"
    assert set(keys.split()) <= set(allocation["tasks"][0])
    assert allocation["node"] == "node-0"


def test_a_node_has_all_that_is_promised(khonsu_json: Any) -> None:
    """A node has its name, whether it may be given work, and what it has."""
    (node,) = json.loads(khonsu_json("node", "list").stdout)
    keys = "id name status schedulable labels attributes resources drivers last_seen"
    assert set(keys.split()) <= set(node)
    assert (node["name"], node["schedulable"], node["labels"]) == ("node-0", True, {"disk": "ssd"})


def test_changes_have_their_form(khonsu_json: Any) -> None:
    """What changes something writes what came of it."""
    check("job-scale", khonsu_json("job", "scale", "web", "2"))
    check("job-revert", khonsu_json("job", "revert", "web", "--version", "1"))
    check("job-stop", khonsu_json("job", "stop", "gone"))
    check("node-drain", khonsu_json("node", "drain", "node-0"))
    check("node-undrain", khonsu_json("node", "undrain", "node-0"))
    allocation = json.loads(khonsu_json("alloc", "list", "--job", "web").stdout)[0]
    stopped = json.loads(khonsu_json("alloc", "stop", allocation["id"]).stdout)
    assert stopped["id"] == allocation["id"]
    assert set(stopped) - {"revision"} == set(allocation)


def test_an_interrupted_run_tells_what_it_submitted(khonsu_json: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the waiting; what runs on is told as if nobody had waited."""

    async def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("khonsu.cli.waits.wait_all", interrupted)
    result = khonsu_json("job", "run", "done.toml", "huge.toml")
    assert (result.exit_code, result.stderr) == (130, "")
    submissions = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["job"], one["outcome"]) for one in submissions] == [("done", "rerun"), ("huge", "unchanged")]


def test_profiles_have_their_form(khonsu_json: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs in is told what it is called, never the credential."""
    monkeypatch.delenv("KHONSU_DATA_DIR")
    server = home / "server"
    address = (server / "server.address").read_text()
    check(
        "login",
        CliRunner().invoke(
            main,
            [
                "login",
                address,
                "--json",
                "--ca",
                str(server / "ca.pem"),
                "--token-file",
                str(server / "operator.token"),
            ],
        ),
    )
    listed = khonsu_json("context", "list")
    check("context-list", listed)
    check("context-use", khonsu_json("context", "use", "127.0.0.1"))
    assert (server / "operator.token").read_text().strip() not in listed.stdout
    check("doctor", CliRunner().invoke(main, ["doctor", "--json"]))
