"""For all tests here: one simulated cluster a module."""

import pytest
from nodes import Nodes


@pytest.fixture(scope="module")
def nodes():
    several = Nodes()
    yield several
    several.shutdown()
