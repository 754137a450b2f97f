"""A fake node with the whole API, to see the console beside it."""

from __future__ import annotations

import pytest

from tests.api.conftest import FakeNode, make_cluster


@pytest.fixture
def fake_node() -> FakeNode:
    return make_cluster(1)["n1"]
