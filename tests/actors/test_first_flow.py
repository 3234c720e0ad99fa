"""The flow that docs/architecture.md shows is true: inline as on Ray, resumed, its refusals listed."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pictures import make_records, write_records
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.refusals import read_refused

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


@pytest.fixture(scope="module")
def page():
    """The page's module, which workers get by value as they would get a script's."""
    from ray import cloudpickle

    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.S)
    module = ModuleType("first_flow")
    exec(compile(block, str(PAGE), "exec"), vars(module))
    sys.modules["first_flow"] = module
    cloudpickle.register_pickle_by_value(module)
    yield module
    cloudpickle.unregister_pickle_by_value(module)
    del sys.modules["first_flow"]


@pytest.fixture
def pool(tmp_path):
    """40 rows in 3 parts, one picture gone."""
    source = write_records(tmp_path, *make_records(40))
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    (tmp_path / "images/pics/20.png").unlink()
    return str(tmp_path / "pool")


@pytest.mark.parametrize("where", ["inline", "ray"])
def test_the_page_is_true(page, pool, tiny_model, tmp_path, where, request):
    if where == "ray":
        request.getfixturevalue("ray_cluster")
    out = str(tmp_path / "out")
    lost = next(r for r in Pool(pool).take(Pool(pool).ids()) if "pics/20.png" in r.images)
    encoder = make_encoder(load_processor(tiny_model), max_len=256)
    expected = sum(len(encoder.encode(r).input_ids) for r in Pool(pool).take(Pool(pool).ids()) if r != lost)
    assert page.count(pool, tiny_model, out, where == "inline") == expected
    assert read_refused(out, "tokens")["sample_id"].to_pylist() == [lost.sample_id]
    assert page.count(pool, tiny_model, out, where == "inline") == 0
    written = sorted((tmp_path / "out" / "tokens").glob("*.json"))
    assert sum(sum(json.loads(p.read_text())["batches"]) for p in written) == expected
    written[1].unlink()
    assert 0 < page.count(pool, tiny_model, out, where == "inline") < expected
