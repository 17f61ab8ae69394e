"""Jobs that are too large, or name what there is not, at a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from khonsu.api.limits import JOB_BYTES_MAX
from khonsu.core.job import Job
from khonsu.errors import InvalidJob, InvalidRequest

if TYPE_CHECKING:
    from tests.faults.running import Server

pytestmark = pytest.mark.anyio

GROUPS_MAX = 10_000


async def submit(server: Server, job: dict[str, Any]) -> dict[str, Any]:
    """Submit a job as it is written by hand."""
    async with server.line() as line:
        body = json.dumps({"job": job}, separators=(",", ":")).encode()
        answer = await line.ask(
            "POST",
            "/api/v1/namespaces/default/jobs",
            body,
            Authorization=f"Bearer {server.token}",
            Content_Type="application/json",
        )
        return {"status": answer.status, **answer.body}


async def test_a_job_of_almost_four_mebibytes(server: Server) -> None:
    """A job that is almost too large is taken and can be read again; a larger one is refused with what to do."""
    words = ["x" * 10_000] * (JOB_BYTES_MAX // 10_100)
    job = Job.single("large", {"command": "true", "args": words}, driver="binary", count=0)
    async with server.client() as client:
        assert (await client.submit(job)).outcome == "created"
        assert (await client.submit(job)).outcome == "unchanged"
        (version,) = await client.history("large")
        assert version.spec == job
        larger = Job.single("larger", {"command": "true", "args": [*words, *words]}, driver="binary", count=0)
        with pytest.raises(InvalidRequest, match=r"larger than 4MiB.*pass it as an artifact"):
            await client.submit(larger)


def many(count: int) -> dict[str, Any]:
    """Return a job of so many groups, none of which wants a copy."""
    tasks = [{"name": "t", "driver": "binary", "config": {"command": "a"}}]
    return {"name": "many", "groups": [{"name": f"g{n}", "count": 0, "tasks": tasks} for n in range(count)]}


async def test_a_job_of_ten_thousand_groups(server: Server) -> None:
    """As many groups as there may be are taken; with one more the refusal says how many may be."""
    refused = await submit(server, many(GROUPS_MAX + 1))
    assert (refused["status"], refused["detail"].splitlines()[1]) == (
        422,
        "  groups: found 10001 groups, expected 1 to 10000 groups",
    )
    taken = await submit(server, many(GROUPS_MAX))
    assert (taken["status"], taken["outcome"]) == (200, "created")


async def test_a_driver_that_no_node_has(server: Server) -> None:
    """A job with an unknown driver finds no place, and the explanation names the driver."""
    async with server.client() as client:
        await client.submit(Job.single("odd", {"image": "x"}, driver="dokcer"))
        result = await client.wait("odd", placement_timeout=0)
        assert result.status == "blocked"
        with pytest.raises(InvalidJob, match="did you mean binpack"):
            await client.submit(Job.single("odd", {"image": "x"}, driver="dokcer", scheduler="binpak"))
        await client.stop("odd", purge=True)
