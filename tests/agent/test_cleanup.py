from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khonsu.agent.cleanup import Remains, doomed
from khonsu.agent.limits import Limits
from khonsu.core.states import AllocationStatus, JobType
from khonsu.drivers.binary import BinaryConfig
from tests.agent.conftest import Hasty

if TYPE_CHECKING:
    from tests.agent.conftest import Home

REMAINS = st.lists(
    st.builds(
        Remains,
        key=st.text("abc", min_size=1, max_size=6),
        ended_at=st.floats(0, 1000),
        size_bytes=st.integers(0, 100),
    ),
    max_size=20,
    unique_by=lambda one: one.key,
)


@given(REMAINS, st.integers(0, 10), st.integers(0, 500), st.floats(0, 1000))
def test_the_limits_are_kept_and_no_more_goes_than_must(
    remains: list[Remains], count: int, size_bytes: int, age: float
) -> None:
    """What is left is within every limit; the oldest went first; one fewer would not have been enough."""
    limits = Limits(ended_count=count, ended_size=size_bytes, ended_age=age)
    gone = list(doomed(remains, limits, 1000.0))

    def fits(kept: list[Remains]) -> bool:
        fresh = all(1000.0 - one.ended_at <= limits.ended_seconds for one in kept)
        return fresh and len(kept) <= count and sum(one.size_bytes for one in kept) <= size_bytes

    kept = [one for one in remains if one not in gone]
    assert fits(kept)
    assert max((one.ended_at for one in gone), default=0) <= min((one.ended_at for one in kept), default=1000)
    assert not gone or not fits([*kept, gone[-1]])


@pytest.mark.anyio
async def test_ended_allocations_are_cleared_away(home: Home) -> None:
    """Beyond the limit the folders of what has ended go, and those of what lives never."""
    folder = home.folder / "allocations"
    async with home.agent(env=Hasty(), limits=Limits(ended_count=2)):
        home.want("lives", BinaryConfig("sleep", args=["1000"]))
        await home.desk.until_status("lives", AllocationStatus.RUNNING)
        for number in range(4):
            home.want(f"a{number}", BinaryConfig("true"), type=JobType.BATCH)
            await home.desk.until_status(f"a{number}", AllocationStatus.COMPLETE)
        env = Hasty()
        kept = {"lives", "a2", "a3"}
        while {path.name for path in folder.iterdir()} != kept:
            await env.sleep(1.0)
        assert not any(path.name.isdigit() for path in (folder / "a3" / ".khonsu" / "one").iterdir())
        assert (folder / "lives" / ".khonsu" / "one" / "1").is_dir()
        home.desk.stop("lives")
        await home.desk.until_status("lives", AllocationStatus.STOPPED)


@pytest.mark.anyio
async def test_what_cannot_be_removed_or_ended_ends_no_agent(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the agent starts."""
    run = home.folder / "allocations" / "a1" / ".khonsu" / "one" / "1"
    run.mkdir(parents=True)
    (run / "lock").mkdir()  # it cannot be opened
    async with home.agent(limits=Limits(ended_count=0)):
        assert "it cannot be seen what may still run" in caplog.text
