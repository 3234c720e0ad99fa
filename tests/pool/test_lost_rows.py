"""An ingest that lost many rows is no pool: it says so, and leaves the list of what to mend."""

import json

import pytest
from pictures import make_records, write_records
from vinnow.pool.doctor import examine
from vinnow.pool.ingest import IngestConfig, ingest, usage_of
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError
from vinnow.store.tables import REFUSED, read_rows


@pytest.fixture
def config(tmp_path):
    """20 rows of which 4 have no picture."""
    source = write_records(tmp_path, *make_records(20))
    return IngestConfig(source=source, image_root=str(tmp_path / "images"))


@pytest.mark.parametrize("check", ["decode", "exists", "none"])
def test_a_typo_in_the_image_root_is_no_pool_of_text_rows(config, tmp_path, check):
    wrong = config.model_copy(update={"image_root": str(tmp_path / "imagse"), "check_images": check})
    with pytest.raises(InputError, match=r"records.json: its image root '.*/imagse' is not there"):
        ingest(wrong, str(tmp_path / "pool"))
    assert not (tmp_path / "pool").exists()
    with pytest.raises(InputError, match="imagse"):
        examine(wrong)


def test_a_root_that_is_there_but_wrong_is_no_pool_either(config, tmp_path):
    (tmp_path / "other").mkdir()
    wrong = config.model_copy(update={"image_root": str(tmp_path / "other")})
    out = tmp_path / "pool"
    with pytest.raises(
        InputError, match=r"ingest of .*: 80.0% of the rows were refused, .* image_missing 16; listed in"
    ):
        ingest(wrong, str(out))
    # what to mend is there to read, and nothing that looks like a pool
    assert [p.name for p in out.glob("[!.]*")] == ["refused.parquet"]
    assert set(read_rows(out / "refused.parquet", REFUSED)["reason"].to_pylist()) == {"image_missing"}
    with pytest.raises(InputError, match="no finished pool"):
        Pool(str(out))
    report = ingest(wrong.model_copy(update={"max_refused": 0.8}), str(out))
    assert (report.rows, usage_of(report, str(out)).refused) == (4, {"image_missing": 16})
    # the same pool under a stricter limit is still refused
    with pytest.raises(InputError, match=r"over max_refused \(5.0%\)"):
        ingest(wrong, str(out))
    assert Pool(str(out)).rows == 4


def test_none_usable_is_an_error_under_any_limit(tmp_path):
    for rows, words in (([], "there were none"), ([5, 6], "not_an_object 2")):
        (tmp_path / "r.json").write_text(json.dumps(rows))
        with pytest.raises(InputError, match=words):
            ingest(IngestConfig(source=str(tmp_path / "r.json"), max_refused=1), str(tmp_path / "pool"))


def test_repeats_that_were_to_be_refused_are_no_loss(tmp_path):
    records, pictures = make_records(10)
    source = write_records(tmp_path, records * 3, pictures)
    config = IngestConfig(source=source, image_root=str(tmp_path / "images"), duplicates="refuse")
    report = ingest(config, str(tmp_path / "pool"))
    assert (report.rows, report.reasons) == (10, {"duplicate": 20})
