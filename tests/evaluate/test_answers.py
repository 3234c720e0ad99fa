"""Answers: batched as one by one, exactly once, resumed, refused with reasons; inline, on Ray, on a GPU."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from pictures import make_records, write_records
from vinnow.evaluate.answers import AnswerActor
from vinnow.evaluate.config import EvalConfig
from vinnow.evaluate.run import evaluate, make_spec
from vinnow.models.load import load
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.pool.refusals import RefusedError
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.refusals import read_refused
from vinnow.store.tables import EVALS, read_rows


def config_for(tiny_pool, tiny_model, **changes):
    values = {"model": tiny_model, "pool": tiny_pool, "run": "r1", "rows_per_part": 16, "max_new_tokens": 5}
    return EvalConfig.parse(values | changes)


def answers_of(path):
    table = read_rows(path, EVALS)
    return dict(zip(table["sample"].to_pylist(), table["answer"].to_pylist(), strict=True))


def inline(config, out):
    actor = AnswerActor(make_spec(config, str(out)))
    for name in actor.shards:
        actor.compute(name)
    answers = {}
    for name in actor.shards:
        answers |= answers_of(out / "answers" / f"{name}.parquet")
    return answers


@pytest.fixture(scope="module")
def expected(tiny_pool, tiny_model, tmp_path_factory):
    """The answers of a batch of one each: no row is padded."""
    return inline(config_for(tiny_pool, tiny_model, max_rows=1), tmp_path_factory.mktemp("one"))


def test_batched_answers_are_those_of_plain_generate(tiny_pool, tiny_model, expected, tmp_path):
    loaded = load(tiny_model)
    actor = AnswerActor(make_spec(config_for(tiny_pool, tiny_model), str(tmp_path)))
    for record in Pool(tiny_pool).take(Pool(tiny_pool).ids()[:8]):
        prompt = actor.generator.encoder.prompt(record)
        inputs = {"input_ids": torch.from_numpy(prompt.input_ids)[None]}
        if record.images:
            pixels = actor.generator.encoder.reader.pixels(load_image(actor.decoder.root, record.images[0]))
            inputs["pixel_values"] = torch.from_numpy(pixels)[None]
        tokens = loaded.model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, len(prompt.input_ids) :]
        text = loaded.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert expected[str(record.sample_id)] == text
    assert len(set(expected.values())) > 3  # else a constant answer would pass every test here


def test_an_answer_of_numbers_that_are_not_finite_is_refused(tiny_pool, tiny_model, tmp_path):
    actor = AnswerActor(make_spec(config_for(tiny_pool, tiny_model, precision="float32"), str(tmp_path)))
    row = actor.shards[min(actor.shards)].start
    records = Pool(tiny_pool).take(Pool(tiny_pool).ids()[row : row + 3])
    prompts = [actor.generator.encoder.prompt(r) for r in records]
    shown = [actor.decoder.pictures(r, p) for p, r in zip(prompts, records, strict=True)]
    plain = actor.answer(shown)

    def overflow(module, inputs, logits):
        logits[1, -1] = float("nan")
        return logits

    actor.generator.model.lm_head.register_forward_hook(overflow)
    answers = actor.answer(shown)
    assert (answers[0], answers[2]) == (plain[0], plain[2])
    assert (type(answers[1]), answers[1].reason) == (RefusedError, "not_finite")


def test_two_pictures_a_question_in_a_batch(tiny_model, tmp_path):
    records, pictures = make_records(6)
    records[1]["image"] = list(pictures)[:2]
    records[1]["conversations"] = [{"from": "human", "value": "is <image> <image>?"}, {"from": "gpt", "value": "yes"}]
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    batched = [inline(config_for(str(tmp_path / "pool"), tiny_model, max_rows=n), tmp_path / str(n)) for n in (1, 8)]
    assert batched[0] == batched[1]
    assert len(batched[0]) == 6


@pytest.mark.parametrize("max_rows", [3, 64])
def test_answers_do_not_depend_on_batch_mates(tiny_pool, tiny_model, expected, tmp_path, max_rows):
    got = inline(config_for(tiny_pool, tiny_model, max_rows=max_rows, rows_per_part=60), tmp_path)
    assert got == expected


@pytest.mark.parametrize("where", ["ray", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_a_run_answers_every_row_and_a_second_one_nothing(
    tiny_pool, tiny_model, expected, tmp_path, ray_cluster, where
):
    config = config_for(tiny_pool, tiny_model, actors=2, gpus_per_actor=0.5 * (where == "gpu"))
    told = []
    report = evaluate(config, str(tmp_path), lambda done, total: told.append((done, total)))
    assert answers_of(tmp_path / "evals.parquet") == expected
    assert (report.rows, report.refused, report.parts, report.skipped_parts) == (60, 0, 4, 0)
    assert told == [(i, 4) for i in range(5)]
    table = read_rows(report.path, EVALS)
    assert [int(s) for s in table["sample"].to_pylist()] == Pool(tiny_pool).ids().tolist()
    assert set(table["run"].to_pylist()) == {"r1"}
    assert report.accuracy == pytest.approx(np.mean(table["correct"].to_pylist()))
    assert sum(report.rows_by_task.values()) == 60
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = evaluate(config, str(tmp_path))
    assert (again.accuracy, again.by_task, again.parts, again.skipped_parts) == (
        report.accuracy,
        report.by_task,
        0,
        4,
    )
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_rerun_answers_only_what_is_missing(tiny_pool, tiny_model, expected, tmp_path, ray_cluster):
    config = config_for(tiny_pool, tiny_model)
    actor = AnswerActor(make_spec(config, str(tmp_path)))
    names = list(actor.shards)
    for name in names[:3]:  # as a killed run leaves it: parts, and the scrap of one
        actor.compute(name)
    scrap = tmp_path / "answers" / f"{names[3]}.parquet.tmp-0123456789ab"
    scrap.write_bytes(b"half")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "answers").glob("*.parquet")}
    report = evaluate(config, str(tmp_path))
    assert (report.parts, report.skipped_parts) == (1, 3)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert answers_of(report.path) == expected


def test_a_killed_actor_is_replaced_and_no_row_is_lost(tiny_pool, tiny_model, tmp_path, ray_cluster, monkeypatch):
    flag = tmp_path / "killed"

    class Dying(AnswerActor):
        def compute(self, name):
            if name.startswith("part-000002") and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), 9)
            return super().compute(name)

    monkeypatch.setattr("vinnow.evaluate.run.AnswerActor", Dying)
    report = evaluate(config_for(tiny_pool, tiny_model), str(tmp_path / "out"))
    assert flag.exists()
    assert (report.rows, report.parts) == (60, 4)


def test_answers_made_otherwise_are_refused_by_name(tiny_pool, tiny_model, tmp_path):
    config = config_for(tiny_pool, tiny_model)
    inline(config, tmp_path)
    with pytest.raises(KeyMismatchError, match=r"max_new_tokens: '5' against '6'"):
        evaluate(config.model_copy(update={"max_new_tokens": 6}), str(tmp_path))
    with pytest.raises(InputError, match="rows_per_part"):
        evaluate(config.model_copy(update={"rows_per_part": 7}), str(tmp_path))
    evaluate(config, str(tmp_path))
    with pytest.raises(KeyMismatchError, match="run: 'r1' against 'r2'"):
        evaluate(config.model_copy(update={"run": "r2"}), str(tmp_path))
    footer = json.loads(pq.read_schema(tmp_path / "evals.parquet").metadata[b"vinnow.eval"])
    assert footer["pool"] == Pool(tiny_pool).digest


def test_rows_that_cannot_be_asked_are_refused_and_the_rest_is_scored(tmp_path, tiny_model):
    records, pictures = make_records(20)
    records[2]["conversations"][0]["value"] += " really" * 400
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    (tmp_path / "images/pics/0.png").unlink()
    (tmp_path / "images/pics/1.png").write_bytes((tmp_path / "images/pics/1.png").read_bytes()[:60])
    config = config_for(str(tmp_path / "pool"), tiny_model, max_len=300, max_refused=0.15)
    inline(config, tmp_path / "out")
    with pytest.raises(InputError, match=r"evaluate: 15.0% of the rows .* over max_refused \(5.0%\): image_missing 1,"):
        evaluate(config.model_copy(update={"max_refused": 0.05}), str(tmp_path / "out"))
    report = evaluate(config, str(tmp_path / "out"))
    refused = read_refused(tmp_path / "out", "answers")
    assert sorted(refused["reason"].to_pylist()) == ["image_missing", "image_truncated", "not_encodable"]
    assert (report.rows, report.refused, sorted(report.reasons.values())) == (20, 3, [1, 1, 1])
    # who is not asked has not answered: the row counts, as wrong
    table = read_rows(report.path, EVALS)
    lost = table.filter(pc.is_in(table["sample"], pa.array([str(i) for i in refused["sample_id"].to_pylist()])))
    assert lost["score"].to_pylist() == [0.0] * 3
    assert lost["answer"].to_pylist() == [""] * 3
    assert report.accuracy == pytest.approx(sum(table["score"].to_pylist()) / 20)
    assert report.image_rows == int(Pool(config.pool).has_image().sum())
    pictured = {str(i) for i in Pool(config.pool).ids()[Pool(config.pool).has_image()].tolist()}
    scores = [s for n, s in zip(table["sample"].to_pylist(), table["score"].to_pylist(), strict=True) if n in pictured]
    assert report.image_accuracy == pytest.approx(np.mean(scores))
    lettered = config.model_copy(update={"benchmark": "option_letter"})
    inline(lettered, tmp_path / "letters")
    with pytest.raises(InputError, match="not one row could be"):
        evaluate(lettered, str(tmp_path / "letters"))
    assert "no option lines" in read_refused(tmp_path / "letters", "answers")["detail"].to_pylist()[5]


def test_pictures_that_are_back_are_asked_again(tmp_path, tiny_model):
    records, pictures = make_records(20)
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    config, out = config_for(str(tmp_path / "pool"), tiny_model, max_refused=1.0), tmp_path / "out"
    whole = answers_of(evaluate(config, str(tmp_path / "whole"), here=True).path)
    picture = tmp_path / "images/pics/0.png"
    picture.rename(tmp_path / "away.png")
    first = evaluate(config, str(out), here=True)
    assert first.reasons.keys() == {"image_missing"}
    again = evaluate(config, str(out), here=True)  # still away: only its parts are tried, and nothing changes
    assert (again.reasons, again.rows) == (first.reasons, 20)
    assert 0 < again.parts < first.parts
    (tmp_path / "away.png").rename(picture)
    back = evaluate(config, str(out), here=True)
    assert (back.refused, back.rows) == (0, 20)
    assert answers_of(back.path) == whole
    assert evaluate(config, str(out), here=True).parts == 0
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"image root .* is not there"):
        evaluate(config, str(tmp_path / "other"), here=True)


@pytest.mark.parametrize("how", ["cut", "empty", "zeroed"])
def test_a_damaged_part_is_answered_anew(tiny_pool, tiny_model, expected, tmp_path, how):
    config = config_for(tiny_pool, tiny_model)
    report = evaluate(config, str(tmp_path), here=True)
    (tmp_path / "evals.json").unlink()
    victim = sorted((tmp_path / "answers").glob("*.parquet"))[1]
    data = bytearray(victim.read_bytes())
    data[4:-8] = bytes(len(data) - 12) if how == "zeroed" else data[4:-8]
    victim.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "zeroed": data}[how])
    again = evaluate(config, str(tmp_path), here=True)
    assert (again.parts, again.skipped_parts) == (1, 3)
    assert answers_of(report.path) == expected


def test_a_checkpoint_that_samples_by_default_still_answers_greedily(tiny_model, tiny_pool, expected, tmp_path):
    import shutil

    shutil.copytree(tiny_model, tmp_path / "m")
    wild = {
        "do_sample": True,
        "temperature": 50.0,
        "num_beams": 3,
        "repetition_penalty": 9.0,
        "max_length": 3,
    }
    (tmp_path / "m/generation_config.json").write_text(json.dumps(wild))
    assert inline(config_for(tiny_pool, str(tmp_path / "m")), tmp_path / "out") == expected


def test_bad_configs_name_the_way_out(tiny_pool, tiny_model, tmp_path):
    with pytest.raises(InputError, match="did you mean 'exact_match'"):
        config_for(tiny_pool, tiny_model, benchmark="exact_macth")
    with pytest.raises(InputError, match="unknown template"):
        config_for(tiny_pool, tiny_model, template="v9")
    with pytest.raises(InputError, match="did you mean 'max_new_tokens'"):
        config_for(tiny_pool, tiny_model, max_tokens=5)
    with pytest.raises(InputError, match="no such folder"):
        evaluate(config_for(tiny_pool, str(tmp_path / "none")), str(tmp_path))
    with pytest.raises(InputError, match="no finished pool"):
        evaluate(config_for(str(tmp_path), tiny_model), str(tmp_path))
