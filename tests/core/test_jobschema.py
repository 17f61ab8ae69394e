from __future__ import annotations

import tomllib
from typing import Any

import jsonschema_rs
import pytest
from attrs import frozen
from hypothesis import given

from khonsu.core.brief import brief_job
from khonsu.core.job import Job
from khonsu.core.jobschema import job_schema
from khonsu.core.parse import parse_jobs
from khonsu.core.schema import config_schema
from khonsu.core.template import job_template
from khonsu.errors import InvalidJob
from tests.core.test_parse import FULL, LONG, SHORT
from tests.core.test_toml import WEB
from tests.effort import examples
from tests.strategies import right_jobs


@frozen
class Command:
    """A command."""

    command: str
    args: tuple[str, ...] = ()


SCHEMA = job_schema({"binary": config_schema(Command)})
VALIDATOR = jsonschema_rs.validator_for(SCHEMA)


def test_it_is_a_schema() -> None:
    """The schema is itself valid by the draft that it names, with drivers and without."""
    for schema in (SCHEMA, job_schema()):
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert jsonschema_rs.meta.is_valid(schema)


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        WEB,
        job_template(),
        f"[[jobs]]\n{WEB.replace('[config]', '[jobs.config]')}\n[[jobs]]\nname = 'b'\ndriver = 'x'\nconfig = {{}}",
        WEB + '[[affinities]]\nwhere = "label.site = home"\nweight = 50\n',
        WEB + '[[spreads]]\nattribute = "label.rack"\nweight = 100\ntargets = { a = 60, b = 40 }\n',
        WEB
        + "[ports]\ndb = { host = 15432, task = 5432 }\n".replace("[ports]", "[meta]").replace(
            "{ host = 15432, task = 5432 }", '"x"'
        ),
        WEB + '[restart]\nattempts = 3\nwithin = "10m"\ndelay = 2\ndelay_max = "60s"\n',
        WEB + '[reschedule]\nattempts = "unlimited"\ndelay = "5s"\n',
        WEB + '[update]\nmax_parallel = 1\nhealthy_for = "5s"\nstart_first = "auto"\nauto_revert = true\ncanary = 0\n',
        WEB + '[disconnect]\nreplace_after = "0s"\nstop_after = "none"\nkeep = "original"\n',
        WEB + '[logs]\nfiles = 10\nfile_size = "10MiB"\n',
        WEB + '[[artifacts]]\nplatforms = { "linux/arm64" = { source = "https://x/y" } }\n',
    ],
)
def test_right_files(text: str) -> None:
    """What the reader takes the schema takes too: every example of the contract among it."""
    table = tomllib.loads(text)
    assert parse_jobs(table)
    assert [error.message for error in VALIDATOR.iter_errors(table)] == []


@examples(25)
@given(right_jobs())
def test_right_jobs(job: Job) -> None:
    """Whatever job there is, as people write it, is right by the schema."""
    assert [error.message for error in jsonschema_rs.validator_for(job_schema()).iter_errors(brief_job(job))] == []


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"name": "web"},
        {**SHORT, "cout": 1},
        {**SHORT, "count": -1},
        {**SHORT, "count": "3"},
        {**SHORT, "priority": 101},
        {**SHORT, "type": "bach"},
        {**SHORT, "resources": {"memory": "64Mi"}},
        {**SHORT, "resources": {"cpu": "lots"}},
        {**SHORT, "ports": {"http": "dynamc"}},
        {**SHORT, "ports": {"http": 70_000}},
        {**SHORT, "restart": {"delay": "1 m"}},
        {**SHORT, "update": {"start_first": "maybe"}},
        {**SHORT, "constraints": [3]},
        {**SHORT, "constraints": [{"attribute": "a", "operator": "=="}]},
        {**SHORT, "checks": [{"type": "http"}]},
        {**SHORT, "config": {"comand": "x"}},
        {**SHORT, **LONG},
        {**LONG, "groups": [{"name": "g"}]},
        {**LONG, "groups": [{"name": "G", "tasks": []}]},
        {"jobs": []},
        {"jobs": [SHORT], "name": "x"},
    ],
)
def test_wrong_files(table: dict[str, Any]) -> None:
    """An editor shows the same mistakes that a submit would find, where one field shows them."""
    assert not VALIDATOR.is_valid(table)
    if table != {**SHORT, "config": {"comand": "x"}}:
        with pytest.raises(InvalidJob):
            parse_jobs(table)


def test_editors_have_something_to_show() -> None:
    """Every key has a description, and a default where it has a plain one."""
    properties = SCHEMA["$defs"]["job"]["properties"]
    assert all(entry["description"] for entry in properties.values())
    assert (properties["disk"]["default"], properties["kill_timeout"]["default"], properties["type"]["default"]) == (
        "300MiB",
        "10s",
        "service",
    )
