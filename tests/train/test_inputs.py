"""What a training is refused for before Ray starts, and how it knows its rows again."""

import json
import os
import pickle
import shutil
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import torch
from vinnow.pool.reader import Pool
from vinnow.store.errors import DuplicateRowsError, InputError, MissingRowsError
from vinnow.store.files import read_json, write_json
from vinnow.store.tables import PICKS, write_rows
from vinnow.train import memory, stop, trackers
from vinnow.train import run as training
from vinnow.train.checkpoint import load_state
from vinnow.train.config import TrainConfig
from vinnow.train.data import Rows, rows_digest
from vinnow.train.run import CONFIG, REPORT, TrainReport, train
from vinnow.train.validation import held_out


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A check that lets something through must not start a cluster here."""

    def started(*_):
        raise AssertionError("Ray would have started")

    monkeypatch.setattr(training, "_fit", started)


def write_picks(path, ids):
    n = len(ids)
    columns = {
        "sample_id": pa.array(ids, pa.uint64()), "rank": range(n), "group": [0] * n, "score": [0.0] * n,
        "selector": ["random"] * n, "budget": [n] * n, "seed": [0] * n,
    }  # fmt: skip
    write_rows(str(path), pa.table({f.name: pa.array(columns[f.name], f.type) for f in PICKS}), PICKS)
    return str(path)


def config(pool, model, **changes):
    base = {"model": model, "pool": pool, "global_batch": 8, "micro_batch": 8, "warmup_ratio": 0}
    return TrainConfig.parse(base | changes)


def test_picks_of_another_pool_are_refused_with_their_count(tiny_pool, target_pool, tiny_model, tmp_path):
    mine, other = Pool(tiny_pool).ids()[:5], Pool(target_pool).ids()
    other = other[~np.isin(other, Pool(tiny_pool).ids())][:3]
    assert len(other) == 3
    picks = write_picks(tmp_path / "p.parquet", [*mine, *other])
    with pytest.raises(MissingRowsError, match=r"p\.parquet': 5 of 8 rows are in the pool .* select again"):
        train(config(tiny_pool, tiny_model, picks=picks), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_picks_behind_the_last_id_and_doubled_ones_are_refused(tiny_pool, tiny_model, tmp_path):
    high = write_picks(tmp_path / "high.parquet", [2**64 - 1])
    with pytest.raises(MissingRowsError, match="0 of 1"):
        Rows(config(tiny_pool, tiny_model, picks=high))
    twice = write_picks(tmp_path / "twice.parquet", [int(Pool(tiny_pool).ids()[0])] * 2)
    with pytest.raises(DuplicateRowsError, match="1 of 2"):
        train(config(tiny_pool, tiny_model, picks=twice), str(tmp_path / "out"))


def test_sound_inputs_reach_ray_and_leave_their_identity(tiny_pool, tiny_model, tmp_path):
    picks = write_picks(tmp_path / "p.parquet", Pool(tiny_pool).ids()[:4])
    cfg = config(tiny_pool, tiny_model, picks=picks)
    with pytest.raises(AssertionError, match="would have started"):
        train(cfg, str(tmp_path / "out"))
    saved = read_json(tmp_path / "out" / CONFIG)
    kept = {n: v for n, v in cfg.model_dump(mode="json").items() if n not in training.FREE}
    assert saved == kept | {training.ROWS: rows_digest(cfg)}


def test_a_folder_with_a_model_s_config_is_no_training_s(tiny_pool, tiny_model, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mine"}')
    with pytest.raises(InputError, match="nothing shows that 'train' made them"):
        train(config(tiny_pool, tiny_model), str(tmp_path))
    assert os.listdir(tmp_path) == ["config.json"]


def test_numbers_may_be_mended_before_the_first_step_and_speed_at_any_time(tiny_pool, tiny_model, tmp_path):
    cfg, out = config(tiny_pool, tiny_model), str(tmp_path / "out")
    smaller, cheaper = (
        config(tiny_pool, tiny_model, micro_batch=1),
        config(tiny_pool, tiny_model, threads=3, cache_mb=5),
    )
    for step in (cfg, smaller):
        with pytest.raises(AssertionError, match="would have started"):
            train(step, out)
    assert read_json(tmp_path / "out" / CONFIG)["micro_batch"] == 1
    (tmp_path / "out" / "log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(InputError, match="micro_batch: was 1, is "):
        train(cheaper, out)
    with pytest.raises(AssertionError, match="would have started"):
        train(cheaper.model_copy(update={"micro_batch": 1}), out)


def test_held_out_rows_and_trackers_are_looked_at_before_ray_starts(tiny_pool, tiny_model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no finished pool"):
        train(config(tiny_pool, tiny_model, validation={"pool": str(tmp_path)}), str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"all its 60 rows are trained on, so none is held out"):
        train(config(tiny_pool, tiny_model, validation={"pool": tiny_pool}), str(tmp_path / "out"))
    picks = write_picks(tmp_path / "p.parquet", Pool(tiny_pool).ids()[:20])
    _, rows, left_out = held_out(config(tiny_pool, tiny_model, picks=picks, validation={"pool": tiny_pool}))
    assert (left_out, sorted(rows.ids.tolist())) == (20, sorted(Pool(tiny_pool).ids()[20:].tolist()))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"mlflow needs the package 'mlflow': `pip install 'vinnow\[track\]'`"):
        train(config(tiny_pool, tiny_model, trackers=["mlflow"]), str(tmp_path / "out"))


def test_memory_that_ran_out_names_the_knobs_that_are_left(tiny_pool, tiny_model, tmp_path):
    whole = config(tiny_pool, tiny_model, parts=["projector", "language_model"], global_batch=36, micro_batch=9)
    said = "; ".join(memory.advice(whole))
    for words in ("gradient_checkpointing: true", "micro_batch: 3 (", "offload: optimizer", "LoRA", "max_len below"):
        assert words in said
    assert "zero_stage: 3" not in said
    lora = {"parts": ["projector", "lora"], "lora": {"r": 2}, "gradient_checkpointing": True, "micro_batch": 1}
    said = "; ".join(memory.advice(config(tiny_pool, tiny_model, **lora, workers=2, global_batch=2)))
    assert "quantise: nf4" in said
    assert "zero_stage: 3" in said
    assert "gradient_checkpointing" not in said
    assert "micro_batch" not in said
    where = {"step": 3, "rows": 9, "tokens": 300}
    error = memory.explain(whole, 1, where, torch.OutOfMemoryError("CUDA out of memory. Tried to"))
    for words in ("worker 1 while step 3", "9 rows, the longest 300 tokens", "Tried to"):
        assert words in str(error)
    # the next attempts of this run say the same at once; a rerun tries
    stop.leave(str(tmp_path), error)
    stop.leave(str(tmp_path), InputError("a second worker's"))
    with pytest.raises(memory.OutOfMemoryError, match="while step 3"):
        stop.raise_left(str(tmp_path))
    stop.forget(str(tmp_path))
    stop.raise_left(str(tmp_path))


@pytest.mark.parametrize("finished", [False, True])
def test_other_rows_at_the_same_path_are_another_training(tiny_pool, tiny_model, tmp_path, finished):
    ids, out = Pool(tiny_pool).ids(), str(tmp_path / "out")
    cfg = config(tiny_pool, tiny_model, picks=write_picks(tmp_path / "p.parquet", ids[:4]))
    with pytest.raises(AssertionError):
        train(cfg, out)
    write_picks(tmp_path / "p.parquet", ids[3::-1])  # the same rows in another order are the same training
    if finished:
        report = TrainReport(str(tmp_path / "out" / "model"), 1, 4, 0.5, 1.0, 1.0, 4.0, 9, 0)
        write_json(tmp_path / "out" / REPORT, asdict(report))
        assert train(cfg, out) == report
    else:
        with pytest.raises(AssertionError):
            train(cfg, out)
        (tmp_path / "out" / "log.jsonl").write_text('{"step": 1}\n')
    write_picks(tmp_path / "p.parquet", ids[4:8])
    with pytest.raises(InputError, match=r"another config: ids of the rows: was '\w+', is '\w+'\."):
        train(cfg, out)


def test_the_whole_pool_is_known_by_its_own_digest(tiny_pool, tiny_model, tmp_path):
    whole = config(tiny_pool, tiny_model)
    every = config(tiny_pool, tiny_model, picks=write_picks(tmp_path / "all.parquet", Pool(tiny_pool).ids()))
    assert rows_digest(whole) == rows_digest(every) == Pool(tiny_pool).digest


def test_a_processor_that_cannot_encode_is_said_at_once(tiny_pool, tiny_model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(InputError, match="no usable tokenizer"):
        train(config(tiny_pool, str(bare)), str(tmp_path / "a"))
    blind = tmp_path / "blind"
    shutil.copytree(tiny_model, blind)
    settings = json.loads((blind / "processor_config.json").read_text())
    (blind / "processor_config.json").write_text(json.dumps(settings | {"num_additional_image_tokens": 0}))
    with pytest.raises(InputError, match="num_additional_image_tokens"):
        train(config(tiny_pool, str(blind)), str(tmp_path / "b"))


def test_lora_on_an_adapter_is_refused_with_its_base(tiny_pool, tiny_model, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": tiny_model, "r": 4}))
    cfg = config(tiny_pool, str(tmp_path), parts=["lora"], lora={"r": 4, "alpha": 8})
    with pytest.raises(InputError, match=f"is a LoRA adapter already.*{tiny_model}.*merge"):
        train(cfg, str(tmp_path / "out"))


class Planted:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_planted_object_in_a_training_s_state_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state").mkdir()
    torch.save({"module": torch.ones(2), "lr_scheduler": Planted()}, tmp_path / "state/mp_rank_00_model_states.pt")

    class Engine:
        def load_checkpoint(self, folder, tag):
            raise AssertionError("it was loaded")

    with pytest.raises(InputError, match=r"carries objects of \['(os|posix)\.system'\], which loading would run"):
        load_state(Engine(), str(tmp_path))
    (tmp_path / "state/mp_rank_00_model_states.pt").write_bytes(pickle.dumps(Planted()))
    with pytest.raises(InputError, match="is no file of torch"):
        load_state(Engine(), str(tmp_path))
    assert not (tmp_path / "ran").exists()
