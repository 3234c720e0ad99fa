"""Rows that can be fed, or refusals with reasons: in order, a batch ahead, and nothing else swallowed."""

import threading

import numpy as np
import pytest
from pictures import make_records, write_records
from vinnow.models.encoding import make_encoder
from vinnow.models.load import load_processor
from vinnow.pool.decode import Decoder, Refusal, is_readable
from vinnow.pool.encode import Encoded, Encoder
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import RefusedError
from vinnow.store.errors import InputError


@pytest.fixture
def pool(tmp_path):
    """12 rows; two pictures are gone or cut since the ingest, and one stands behind too long a text."""
    records, pictures = make_records(12)
    before = [{"from": "human", "value": "really " * 900}, {"from": "gpt", "value": "no"}]
    records[6]["conversations"] = before + records[6]["conversations"]
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    (tmp_path / "images/pics/2.png").unlink()
    cut = tmp_path / "images/pics/5.png"
    cut.write_bytes(cut.read_bytes()[:60])
    return Pool(str(tmp_path / "pool"))


@pytest.fixture
def decoder(pool, tiny_model):
    return Decoder(make_encoder(load_processor(tiny_model), "v1", 256), pool.image_root, 2)


def all_rows(pool):
    return pool.take(pool.ids())


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_those_of_one_after_the_other_and_refused_in_order(pool, decoder, threads):
    records = all_rows(pool)
    rows = Decoder(decoder.encoder, pool.image_root, threads).rows(records)
    refused = [row for row in rows if isinstance(row, Refusal)]
    reasons = {2: "image_missing", 5: "image_truncated", 6: "not_encodable"}
    assert [r[:3] for r in refused] == [(records[i].sample_id, "shapes", why) for i, why in reasons.items()]
    for record, row in zip(records, rows, strict=True):
        if isinstance(row, Encoded):
            plain = [decoder.encoder.reader.pixels_u8(load_image(pool.image_root, i)) for i in record.images]
            assert np.array_equal(row.input_ids, decoder.encoder.encode(record).input_ids)
            assert [p["pixel_values"].tolist() for p in row.media] == [[p.tolist()] for p in plain]


def test_a_callers_own_encoding_may_refuse_and_its_pictures_are_not_decoded(pool, decoder, monkeypatch):
    def none(record):
        raise RefusedError("no_question")

    monkeypatch.setattr(Encoder, "load", lambda *_: pytest.fail("decoded a refused row"))
    rows = decoder.rows(all_rows(pool), none)
    assert {type(r) for r in rows} == {Refusal}
    assert {r.reason for r in rows} == {"no_question"}


def test_what_is_no_rows_fault_is_not_swallowed(pool, decoder):
    def broken(record):
        raise InputError("the tokenizer has no end")

    with pytest.raises(InputError, match="no end"):
        decoder.rows(all_rows(pool), broken)


def test_the_next_batch_is_decoded_while_one_is_used(pool, decoder, monkeypatch):
    records = [r for r in all_rows(pool) if r.images and is_readable(pool.image_root, r)]
    encoded = [(r, decoder.encoder.prompt(r)) for r in records[:3]]
    begun, load = [threading.Event() for _ in encoded], Encoder.load

    def watched(self, root, image, seen=None, among=1):
        begun[[e.images[0] for _, e in encoded].index(image)].set()
        return load(self, root, image, seen, among)

    monkeypatch.setattr(Encoder, "load", watched)
    batches = decoder.batches([pair] for pair in encoded)
    (first,) = next(batches)
    assert first.input_ids is encoded[0][1].input_ids
    assert len(first.media) == len(first.images) == 1
    assert begun[1].wait(10)
    assert not begun[2].is_set()
    assert [row.sample_id for batch in batches for row in batch] == [r.sample_id for r in records[1:3]]
    assert list(decoder.batches([])) == []


def test_pictures_that_are_back_are_readable(pool, tmp_path):
    records = {r.images[0]: r for r in all_rows(pool) if r.images}
    assert is_readable(pool.image_root, records["pics/0.png"])
    assert not is_readable(pool.image_root, records["pics/2.png"])
    assert not is_readable(pool.image_root, records["pics/5.png"])
