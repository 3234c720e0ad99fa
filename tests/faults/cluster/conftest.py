"""For all tests here: one simulated cluster."""

import pytest
from nodes import Nodes
from pictures import make_records, write_records
from trials import QUESTIONS, write


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


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder, pools = tmp_path_factory.mktemp("sources"), {}
    for name, rows in (("pool", 40), ("test", QUESTIONS)):
        (folder / name).mkdir()
        source = write_records(folder / name, *make_records(rows, seed=rows))
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    return pools


@pytest.fixture(scope="session")
def undisturbed_sweep(nodes, sources, tmp_path_factory):
    nodes.have(2)
    file, out = write(tmp_path_factory.mktemp("undisturbed"), sources)
    nodes.start("run", file).end()
    return out
