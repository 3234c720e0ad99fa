"""What a pool and its choices hold by field: counted right, shown escaped, absent where records have no such fields."""

import io

import numpy as np
from markupsafe import escape
from pictures import make_records, write_records
from rich.console import Console
from vinnow.pipelines.report.build import page
from vinnow.pipelines.report.composition import compose, composition_table, short_rows
from vinnow.pipelines.report.data import ReportData
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool

HOSTILE = '<script>alert("1")</script>'


def test_a_pool_s_fields_are_counted_in_it_and_in_each_choice(tmp_path, tiny_pool):
    records, pictures = make_records(12)
    for i, record in enumerate(records):
        record |= {"subject": f"{'ab'[i % 2]} [/] {HOSTILE}", "skill": f"k{i}"} if i else {"skill": ["odd"]}
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    compositions = compose(Pool(str(tmp_path / "pool")), {"mine": np.arange(6)})
    assert [one.field for one in compositions] == ["subject", "skill", "image"]
    assert compositions[0].pool == {f"b [/] {HOSTILE}": 6, f"a [/] {HOSTILE}": 5, "–": 1}
    assert compositions[0].choices == {"mine": {f"b [/] {HOSTILE}": 3, f"a [/] {HOSTILE}": 2, "–": 1}}
    assert short_rows(compositions)[-3:] == [
        ("values of skill", [12, 6]),
        ("image: with a picture", [10, 5]),
        ("image: text only", [2, 1]),
    ]
    data, out = ReportData(composition=compositions), io.StringIO()
    Console(file=out, width=200).print(composition_table(data))
    assert "image: with a picture" in out.getvalue()
    markup = page(data)
    assert "In short" in markup
    assert escape(HOSTILE) in markup
    assert HOSTILE not in markup
    assert compose(Pool(tiny_pool), {}) == []
