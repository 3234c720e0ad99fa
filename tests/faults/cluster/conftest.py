"""For all tests here: one simulated cluster."""

import pytest
from nodes import Nodes


@pytest.fixture(scope="session")
def nodes():
    several = Nodes()
    yield several
    several.shutdown()
