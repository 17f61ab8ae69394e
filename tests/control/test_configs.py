"""The schemas of the drivers' configs, as the nodes that there are have them."""

from __future__ import annotations

import pytest

from khonsu.control.configs import Configs
from khonsu.core.configs import schemas_of
from khonsu.core.records import DriverInfo
from tests.control.cluster import Cluster

pytestmark = pytest.mark.anyio


async def test_the_schemas_follow_the_nodes(home: Cluster) -> None:
    """What is kept is what the nodes say now: one joins with another driver, one says something else, one is gone."""
    configs = Configs(home.plane.parts.state)
    assert configs.schemas() == {}
    node = await home.node("a")
    await home.node("b", drivers=(DriverInfo(name="other", config_schema={"type": "object"}),))
    assert configs.schemas() == {"fake": {}, "other": {"type": "object"}}
    assert configs.schemas() is configs.schemas()
    state = home.plane.parts.state
    batch = state.batch()
    batch.delete("node", node.id)
    await state.commit(batch)
    assert configs.schemas() == schemas_of(home.tables.nodes.values()) == {"other": {"type": "object"}}
