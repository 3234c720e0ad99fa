"""For all tests here: one simulated cluster."""

import pytest
from nodes import Nodes


@pytest.fixture
def account(record_property):
    """Note what a scenario lost and did again: `benchmarks/faults.py` makes its table of these."""

    def note(what, ids, of, again):
        ids = list(ids)
        counts = {"what": what, "of": of, "lost": of - len(set(ids)), "twice": len(ids) - len(set(ids)), "again": again}
        for name, value in counts.items():
            record_property(name, value)
        assert (counts["lost"], counts["twice"]) == (0, 0)

    return note


@pytest.fixture(scope="session")
def nodes():
    several = Nodes()
    yield several
    several.shutdown()
