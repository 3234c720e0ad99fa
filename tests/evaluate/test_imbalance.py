"""Modality imbalance: against `output_attentions` row by row; batched, resumed and refused as answers are."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from pictures import make_records, write_records
from safetensors.torch import load_file, save_file
from transformers import Gemma2Config, LlavaConfig, LlavaForConditionalGeneration, MistralConfig
from vinnow.evaluate.config import EvalConfig, ImbalanceConfig
from vinnow.evaluate.imbalance import ImbalanceActor, curve_of, generated, measure
from vinnow.evaluate.shards import join_shards, make_spec
from vinnow.evaluate.statistics.bootstrap import mean_intervals, percentile, resampled_sums
from vinnow.models.components import add_lora, base_of
from vinnow.models.load import load
from vinnow.models.mores import add_mores
from vinnow.models.specs import LoraSpec, MoresSpec
from vinnow.models.taps.modality import ModalityTap
from vinnow.pool.encode import IGNORE
from vinnow.pool.images import load_image
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool
from vinnow.store.errors import InputError, KeyMismatchError
from vinnow.store.refusals import read_refused
from vinnow.store.tables import IMBALANCE, read_rows

LISTS = ("lmar", "image", "text")


@pytest.fixture(scope="module")
def sharp_path(tiny_model, tmp_path_factory):
    """The tiny model with queries thirty times as long: attention that is far from even."""
    folder = tmp_path_factory.mktemp("sharp") / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if "language_model" in name and name.endswith("q_proj.weight"):
            weights[name] *= 30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def config_for(tiny_pool, path, **changes):
    values = {"model": path, "pool": tiny_pool, "run": "r1", "rows_per_part": 16, "max_new_tokens": 5}
    return ImbalanceConfig.parse(values | changes)


def actor_for(tiny_pool, path, out, model=None):
    """An actor whose model is in float64: the one that is given, else the folder's."""
    actor = ImbalanceActor(make_spec(config_for(tiny_pool, path), str(out)))
    actor.generator.model = load(path, "float64").model if model is None else model.double()
    actor.tap = ModalityTap(actor.generator.model)
    actor.generator.ends = actor.generator._own_settings()
    return actor


def rows_of(tiny_pool, n=5):
    return [r for r in Pool(tiny_pool).take(Pool(tiny_pool).ids()[:20]) if r.images][:n]


def asked(actor, records):
    prompts = [actor.prompt(r) for r in records]
    return [actor.decoder.pictures(r, p) for p, r in zip(prompts, records, strict=True)]


def end_early(actor, records):
    """Make a generated token an end mark: the one by which answers differ most in length."""
    new = actor.generator.generate(actor.generator.inputs(asked(actor, records)), 5)
    actor.generator.ends = [max(new.unique().tolist(), key=lambda word: len(generated(new, [word]).unique()))]
    base_of(actor.generator.model).generation_config.eos_token_id = actor.generator.ends


def question_places(tokenizer, record, ids):
    """Where the question's text stands, by the template's layout: behind the picture comes `\\n`, it, ` ASSISTANT:`."""
    question = record.conversations[0]["value"].removeprefix("<image>\n")
    offsets = tokenizer(f"\n{question} ASSISTANT:", add_special_tokens=False, return_offsets_mapping=True)
    inside = [b > 1 and a < 1 + len(question) for a, b in offsets["offset_mapping"]]
    return np.flatnonzero(inside) + len(ids) - len(inside)


@torch.no_grad()
def naive(actor, record):
    """One row alone, by the attention that the eager model says it computes."""
    model, ids = actor.generator.model, torch.from_numpy(actor.generator.encoder.prompt(record).input_ids)
    image = np.flatnonzero(ids.numpy() == actor.generator.encoder.image_id)
    text = question_places(actor.generator.tokenizer, record, ids)
    pixels = torch.from_numpy(actor.generator.encoder.reader.pixels(load_image(actor.decoder.root, record.images[0])))[
        None
    ].double()
    config = base_of(model).model.language_model.config
    config._attn_implementation = "eager"
    out = model.generate(
        input_ids=ids[None], pixel_values=pixels, output_attentions=True, return_dict_in_generate=True, max_new_tokens=5
    )
    config._attn_implementation = "sdpa"
    steps = []
    for number, layers in enumerate(out.attentions):
        row = np.zeros((len(layers), len(ids) + number))
        for layer, a in enumerate(layers):
            last = a[0, :, -1].double().mean(0).numpy()
            row[layer, -len(last) :] = last  # a sliding cache has only the last keys
        steps.append(np.stack([row[:, image].sum(1), row[:, text].sum(1)]))
    mass = np.mean(steps, 0)
    lmar = (mass[0] / len(image)) / (mass[1] / len(text))
    return {"lmar": lmar, "image": mass[0], "text": mass[1], "n_generated": len(steps)}


def check(actor, records):
    got, expected = actor.answer(asked(actor, records)), [naive(actor, r) for r in records]
    for one, want in zip(got, expected, strict=True):
        for name in LISTS:  # Hugging Face's eager softmax is float32
            np.testing.assert_allclose(one[name], want[name], rtol=2e-5, atol=1e-7)
        assert one["n_generated"] == want["n_generated"]
    return got


def changed(tiny_model, kind):
    torch.manual_seed(0)
    model = load(tiny_model).model
    if kind == "mores":
        steered = add_mores(model, MoresSpec(rank=3))
        with torch.no_grad():
            for parameter in steered.parameters():
                parameter.copy_(torch.randn_like(parameter))
    elif kind == "lora":
        model = add_lora(model, LoraSpec(r=4, alpha=8, init="zero_b"))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    else:
        model = other_llm(model, kind)
    return model.eval()


def other_llm(model, text):
    llm = model.config.text_config
    sizes = {
        n: getattr(llm, n)
        for n in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    config = LlavaConfig(
        vision_config=model.config.vision_config,
        text_config=text(**sizes, num_key_value_heads=2, head_dim=16, initializer_range=0.2, sliding_window=48),
        image_token_index=model.config.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
    )
    how = "eager" if text is Gemma2Config else "sdpa"
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=how)


def test_values_are_those_of_output_attentions(tiny_pool, sharp_path, tmp_path):
    actor = actor_for(tiny_pool, sharp_path, tmp_path)
    records = rows_of(tiny_pool, 8)
    end_early(actor, records)
    got = check(actor, records)
    lengths = {r["n_generated"] for r in got}
    assert len(lengths) > 1, lengths  # else steps behind an end mark would not be tried
    assert np.ptp([r["lmar"][0] for r in got]) > 0.05
    assert np.abs(np.log([r["lmar"] for r in got])).max() > 0.1


def test_an_answer_that_ends_at_once_has_one_query(tiny_pool, sharp_path, tmp_path):
    actor = actor_for(tiny_pool, sharp_path, tmp_path)
    records = rows_of(tiny_pool, 2)
    first = actor.generator.generate(actor.generator.inputs(asked(actor, records)), 5)[0, 0]
    actor.generator.ends = base_of(actor.generator.model).generation_config.eos_token_id = [int(first)]
    got = check(actor, records)[0]
    assert (got["n_generated"], len(got["lmar"])) == (1, 2)


@pytest.mark.parametrize("kind", ["mores", "lora", MistralConfig], ids=["mores", "lora", "mistral"])
def test_steered_adapted_and_grouped_models(tiny_pool, tiny_model, tmp_path, kind):
    actor = actor_for(tiny_pool, tiny_model, tmp_path, changed(tiny_model, kind))
    got = check(actor, rows_of(tiny_pool, 4))
    if kind is MistralConfig:  # the window has let some of the picture go
        assert max(r["n_image"] for r in got) == 16
        assert actor.generator.model.config.text_config.sliding_window < len(
            actor.prompt(rows_of(tiny_pool)[0]).input_ids
        )


def test_rows_do_not_depend_on_batch_mates(tiny_pool, sharp_path, tmp_path):
    actor = actor_for(tiny_pool, sharp_path, tmp_path)
    records = rows_of(tiny_pool, 8)
    end_early(actor, records)
    together = actor.answer(asked(actor, records))
    assert len({len(actor.prompt(r).input_ids) for r in records}) > 1
    for record, one in zip(records, together, strict=True):
        alone = actor.answer(asked(actor, [record]))[0]
        assert {n: one[n] for n in one if n not in LISTS} == {n: alone[n] for n in one if n not in LISTS}
        for name in LISTS:
            np.testing.assert_allclose(one[name], alone[name], rtol=1e-5)


@pytest.mark.refuses("modality imbalance of attention that is no softmax of scaled products: it cannot be read exactly")
def test_attention_that_cannot_be_read_is_refused(tiny_pool, tiny_model, tmp_path):
    actor = actor_for(tiny_pool, tiny_model, tmp_path, changed(tiny_model, Gemma2Config))
    with pytest.raises(InputError, match="softcap"):
        actor.answer(asked(actor, rows_of(tiny_pool, 1)))
    assert actor.generator.model.config.text_config._attn_implementation == "eager"  # and the model is as it was
    with actor.tap.watch(torch.ones(1, 3), torch.ones(1, 3)):
        pass
    with pytest.raises(InputError, match=r"layers \[0, 1\] cannot be read"):
        actor.tap.shares(torch.ones(1))


def test_only_the_questions_own_words_are_marked(tiny_pool, tiny_model, tmp_path):
    actor = actor_for(tiny_pool, tiny_model, tmp_path)
    for record in rows_of(tiny_pool, 8):
        plain, marked = actor.generator.encoder.prompt(record), actor.prompt(record)
        assert plain.input_ids.tolist() == marked.input_ids.tolist()
        assert (plain.labels == IGNORE).all()
        places = question_places(actor.generator.tokenizer, record, marked.input_ids)
        assert np.flatnonzero(marked.labels != IGNORE).tolist() == places.tolist()


def test_generated_counts_the_end_mark_and_nothing_behind_it():
    new = torch.tensor([[5, 6, 2, 3, 3], [2, 3, 3, 3, 3], [5, 6, 7, 8, 9], [5, 2, 7, 2, 3]])
    assert generated(new, [2]).tolist() == [3, 1, 5, 2]
    assert generated(new, []).tolist() == [5, 5, 5, 5]


def test_a_run_measures_each_row_with_a_picture_and_a_second_one_nothing(tiny_pool, sharp_path, tmp_path):
    config = config_for(tiny_pool, sharp_path)
    actor = ImbalanceActor(make_spec(config, str(tmp_path)))
    actor.compute(next(iter(actor.shards)))  # as a killed run leaves it: a part, and the scrap of one
    (tmp_path / "imbalance" / f"{list(actor.shards)[1]}.parquet.tmp-0123456789ab").write_bytes(b"half")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "imbalance").glob("*.parquet")}
    told = []
    report = measure(config, str(tmp_path), lambda done, total: told.append((done, total)), here=True)
    assert told == [(i, 4) for i in range(1, 5)]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (report.rows, report.refused, report.reasons) == (48, 12, {"no_image": 12})
    assert (report.parts, report.skipped_parts) == (3, 1)
    table, pool = read_rows(report.path, IMBALANCE), Pool(tiny_pool)
    assert [int(s) for s in table["sample"].to_pylist()] == pool.ids()[pool.has_image()].tolist()
    refused = read_refused(tmp_path, "imbalance")
    assert sorted(refused["sample_id"].to_pylist()) == sorted(pool.ids()[~pool.has_image()].tolist())
    np.testing.assert_allclose(report.curve["lmar"], np.mean(table["lmar"].to_pylist(), 0))
    assert sum(report.rows_by_task.values()) == 48
    saved = json.loads((tmp_path / "imbalance.json").read_text())
    assert saved["curve"] == report.curve
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = measure(config, str(tmp_path))
    assert (again.curve, again.parts, again.skipped_parts) == (report.curve, 0, 4)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    with pytest.raises(KeyMismatchError, match=r"max_new_tokens: '5' against '6'"):
        measure(config.model_copy(update={"max_new_tokens": 6}), str(tmp_path))


def test_curves_are_means_over_rows_with_intervals():
    rng = np.random.default_rng(0)
    n_image, n_text = rng.integers(8, 20, 40), rng.integers(2, 9, 40)
    image, text = rng.uniform(0.1, 0.5, (40, 3)), rng.uniform(0.1, 0.4, (40, 3))
    lmar = np.array([[(i / a) / (t / b) for i, t in zip(x, y)] for x, y, a, b in zip(image, text, n_image, n_text)])
    lists = {"lmar": lmar.tolist(), "image": image.tolist(), "text": text.tolist()}
    curve = curve_of(pa.table({"n_image": n_image, "n_text": n_text} | lists))
    np.testing.assert_allclose(curve["lmar"], lmar.mean(0))
    np.testing.assert_allclose(curve["mass"], image.mean(0))
    ratio = [sum(image[:, k] / n_image) / sum(text[:, k] / n_text) for k in range(3)]
    np.testing.assert_allclose(curve["ratio_of_means"], ratio)
    for k in range(3):  # the same interval as the other bootstrap's, but for its draws
        sums = resampled_sums(lmar[:, k : k + 1], np.arange(40), 1)
        other = percentile(float(lmar[:, k].mean()), sums[:, 1] / sums[:, 0])
        width = other.high - other.low
        assert abs(curve["lmar_low"][k] - other.low) < 0.05 * width
        assert abs(curve["lmar_high"][k] - other.high) < 0.05 * width
    with pytest.raises(InputError, match="at least one row"):
        mean_intervals(np.zeros((0, 2)), 0)


def test_rows_that_cannot_be_measured_are_listed(tmp_path, tiny_model):
    records, pictures = make_records(6)
    records[0]["conversations"] = [{"from": "human", "value": "<image>\n"}, {"from": "gpt", "value": "a shape"}]
    source = write_records(tmp_path, records, pictures)
    ingest(IngestConfig(source=source, image_root=str(tmp_path / "images")), str(tmp_path / "pool"))
    (tmp_path / "images/pics/1.png").unlink()
    config = config_for(str(tmp_path / "pool"), tiny_model)
    actor = ImbalanceActor(make_spec(config, str(tmp_path / "out")))
    with torch.no_grad():  # a broken model: no row of it is a number
        actor.generator.model.model.language_model.layers[1].self_attn.q_proj.weight[0, 0] = torch.nan
    assert actor.compute(next(iter(actor.shards)))["rows"] == 0
    reasons = sorted(read_refused(tmp_path / "out", "imbalance")["reason"].to_pylist())
    assert reasons == ["image_missing", "no_image", "no_question", "not_finite", "not_finite", "not_finite"]
    with pytest.raises(InputError, match="not one row could be asked"):
        join_shards(make_spec(config, str(tmp_path / "out")), ImbalanceActor, list(actor.shards), "imbalance.parquet")


def test_imbalance_is_no_score_and_scores_no_imbalance(tiny_pool, tiny_model):
    values = {"model": tiny_model, "pool": tiny_pool, "run": "r"}
    with pytest.raises(InputError, match="vinnow evaluate --benchmark imbalance"):
        EvalConfig.parse(values | {"benchmark": "imbalance"})
    with pytest.raises(InputError, match="not 'yes_no'"):
        ImbalanceConfig.parse(values | {"benchmark": "yes_no"})
