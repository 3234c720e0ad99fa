"""Shares of one source: each row lies in exactly one, whatever the order; rows of a picture lie together."""

import json
import random

import pytest
from mixed import write_mixed
from pictures import make_records, write_records
from vinnow.pipelines.runs.samples import look
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError

SHARES = [(0.0, 0.6), (0.6, 0.85), (0.85, 1.0)]


def pool_of(folder, source, share=None, **options):
    root = str(source.parent / "images")
    report = ingest(IngestConfig(source=str(source), image_root=root, share=share, **options), str(folder))
    return Pool(str(folder)), report


@pytest.fixture
def source(tmp_path):
    """Of 80 records, two are none, one is there twice, and five more ask about pictures of others."""
    records, pictures = make_records(80)
    shown = [r for r in records if "image" in r][:5]
    more = [
        r | {"conversations": [r["conversations"][0] | {"value": "<image>\nmore?"}, r["conversations"][1]]}
        for r in shown
    ]
    write_records(tmp_path, [*records, *more, records[4], {"id": "none"}, {"conversations": []}], pictures)
    return tmp_path / "records.json"


def test_each_row_lies_in_one_share_with_the_id_that_it_has_in_the_whole(tmp_path, source):
    whole, all_of_it = pool_of(tmp_path / "whole", source, max_refused=0.5)
    parts = [pool_of(tmp_path / f"{n}", source, share, max_refused=0.5) for n, share in enumerate(SHARES)]
    ids = [set(pool.ids().tolist()) for pool, _ in parts]
    assert set().union(*ids) == set(whole.ids().tolist())
    assert sum(map(len, ids)) == whole.rows == 86
    assert sum(report.refused for _, report in parts) == all_of_it.refused == 2
    assert all(report.rows + report.refused + report.elsewhere == 88 for _, report in parts)
    pictures = [{i for r in pool.take(pool.ids()) for i in r.images} for pool, _ in parts]
    assert not pictures[0] & pictures[1] | pictures[0] & pictures[2] | pictures[1] & pictures[2]
    assert all(len(i) > 4 for i in ids)


def test_the_order_of_a_source_is_no_matter(tmp_path, source):
    before, _ = pool_of(tmp_path / "a", source, SHARES[1], max_refused=1)
    records = json.loads(source.read_text())
    random.Random(3).shuffle(records)
    source.write_text(json.dumps(records))
    after, _ = pool_of(tmp_path / "b", source, SHARES[1], max_refused=1)
    assert sorted(before.ids()) == sorted(after.ids())


def test_another_share_is_another_pool(tmp_path, source):
    pool_of(tmp_path / "a", source, SHARES[0], max_refused=1)
    for share in (SHARES[1], None):
        with pytest.raises(InputError, match=r"share: was \[0.0, 0.6\]"):
            pool_of(tmp_path / "a", source, share, max_refused=1)
    for wrong in ([0.5, 0.5], [-0.1, 1], [0.2, 1.1]):
        with pytest.raises(InputError, match="0 <= FROM < TO <= 1"):
            IngestConfig.parse({"source": "s", "share": wrong})


def test_a_plan_counts_a_share_before_it_is_ingested(tmp_path):
    source = write_mixed(tmp_path)
    for number, share in enumerate(SHARES):
        config = IngestConfig(source=source, image_root=str(tmp_path / "images"), share=share)
        foreseen = look(config, str(tmp_path / "none"))
        assert foreseen.rows == len(foreseen.records) == ingest(config, str(tmp_path / f"{number}")).rows
