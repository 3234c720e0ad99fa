"""Prices of a plan: sampled rows, rates, memory; no model, no Ray."""

import json
from itertools import pairwise

import pytest
from pictures import make_records, write_records
from transformers import AutoConfig, JetMoeConfig, LlavaForConditionalGeneration
from vinnow.actors.config import FeatureConfig
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.registry import families
from vinnow.models.specs import TinyModelConfig
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.plan import make_plan
from vinnow.pipelines.runs.plan_shown import plan_json, print_plan, summarise
from vinnow.pipelines.runs.prices import Prices
from vinnow.pipelines.runs.rates import PlanConfig, load_rates, rate_for
from vinnow.pipelines.runs.samples import ROWS, Sample, encode_sizes, estimate_sizes, look
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.records import Record
from vinnow.store.errors import InputError
from vinnow.train.recipe import TrainRecipe

STEP = {"max_len": 256, "global_batch": 8, "micro_batch": 8, "max_steps": 3}
SEVEN = {
    "image": 336, "patch": 14, "vision_hidden": 1024, "vision_layers": 24, "hidden": 4096, "layers": 32, "heads": 32,
    "ffn": 11008, "vocab": 32000,
}  # fmt: skip


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A run's plain values, on 60 + 9 rows."""
    folder = tmp_path_factory.mktemp("prices")
    pools = {}
    for name, rows, seed in (("pool", 60, 0), ("target", 9, 99)):
        (folder / name).mkdir()
        source = write_records(folder / name, *make_records(rows, seed))
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    return pools | {
        "test": pools["target"],
        "out": str(folder / "out"),
        "model": {"twin": {}},
        "proxy": STEP | {"checkpoint_count": 2},
        "features": [{"kind": "gradient", "projection": {"dim": 64}, "max_len": 256}],
        "selectors": [{"name": "random"}],
        "budgets": ["20%"],
        "finetune": STEP,
    }


def run_of(values, **changes):
    return resolve(json.loads(json.dumps(values | changes)))


def lines(values, **changes):
    return {line.stage: line for line in make_plan(run_of(values, **changes))}


def row(chars, i=0):
    turns = [{"from": "human", "value": "<image>\n"}, {"from": "gpt", "value": "x" * chars}]
    return Record(i, "s", "t", ("a.png",), turns, {})


def test_rates_come_from_the_config_a_file_or_the_package(values, tmp_path):
    def hours(**section):
        config = resolve(json.loads(json.dumps(values | {"out": str(tmp_path / "new"), "plan": section})))
        price = next(line.price for line in make_plan(config) if line.stage == "features-gradient")
        return price.hours, price.how[1]

    measured = rate_for(load_rates(PlanConfig()), "gradient", "rademacher")
    assert measured.projection == "rademacher"  # what the config projects with
    assert f"NVIDIA H200 at the measured {measured.tflops:.0f} TFLOP/s" in hours()[1]
    assert "in float32, as configured, it takes longer" in hours()[1]
    assert hours(tflops=measured.tflops / 2)[0] == pytest.approx(2 * hours()[0])
    mine = {
        "gpu": "G",
        "precision": "float32",
        "samples_per_s": 1,
        "tflop_per_sample": 2,
        "measured": "m",
        "source": "s",
    }
    file = tmp_path / "rates.json"
    file.write_text(json.dumps([mine | {"work": "gradient"}, mine | {"work": "training", "samples_per_s": 9}]))
    assert hours(rate_file=str(file))[1] == "GPU-hours: one G at the measured 2 TFLOP/s (float32; m; s)"
    for content, words in (("[]", "a JSON list"), ('[{"gpu": "G"}]', r"rates\.json\[0\]\.work' is required")):
        file.write_text(content)
        with pytest.raises(InputError, match=words):
            hours(rate_file=str(file))
    with pytest.raises(InputError, match="not both"):
        hours(rate_file="x", tflops=1)


def test_a_price_is_no_part_of_a_run_s_identity(values):
    plain, priced = (resolve(json.loads(json.dumps(values)), s) for s in ([], ["plan.tflops=100"]))
    assert plain.digest() == priced.digest()


def planned_with(values, path, place):
    changed = values | {"out": str(place), "model": {"path": path}}
    return next(line for line in make_plan(resolve(json.loads(json.dumps(changed)))) if line.stage == "proxy")


def test_a_model_that_cannot_be_counted_is_planned_without_a_price(values, tmp_path):
    texts = ["USER: what is this? ASSISTANT: red"] * 9
    path = build_tiny_model(str(tmp_path / "phi"), texts, TinyModelConfig(llm="phi", layers=1))
    priced = planned_with(values, path, tmp_path / "counted")
    assert priced.price.tflop > 0
    assert priced.bytes > 0
    # JetMoE sends tokens to experts by values that only weights give
    config = AutoConfig.from_pretrained(build_tiny_model(str(tmp_path / "jet"), texts, TinyModelConfig(layers=1)))
    sizes = {"vocab_size": config.text_config.vocab_size, "hidden_size": 64, "intermediate_size": 64}
    config.text_config = JetMoeConfig(**sizes, num_hidden_layers=1, num_local_experts=2, pad_token_id=3)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "jet")
    proxy = planned_with(values, str(tmp_path / "jet"), tmp_path / "new")
    assert (proxy.steps, proxy.price.row, proxy.bytes) == (3, {}, 0)
    assert "no price: a LLaVA (LlavaForConditionalGeneration) of this config cannot be counted" in proxy.price.how[0]


@pytest.mark.parametrize("pictures", [True, False])
def test_qwen_is_priced_by_the_sizes_of_its_pictures(values, tmp_path, pictures):
    texts = ["what is in the image?", "a red square", "user assistant system You are a helpful assistant."] * 20
    path = families()["qwen2_5_vl"].tiny(str(tmp_path / "model"), texts)
    source = values["pool"] if pictures else {"source": values["pool"]["source"], "check_images": "none"}
    price = planned_with(values | {"pool": source}, path, tmp_path / "out").price
    assert price.tflop > 0
    assert price.row["vision fwd"] > price.row["projector fwd"] > 0
    assert ("that are not there taken as 640 × 480" in price.how[0]) != pictures


def test_a_source_is_sampled_evenly_whatever_its_length(tmp_path):
    records = [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": str(i)}]} for i in range(5000)
    ]
    records[8] = {"conversations": "broken"}
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    sample = look(IngestConfig(source=str(tmp_path / "r.jsonl")), str(tmp_path / "pool"))
    kept = [int(r.conversations[1]["value"]) for r in sample.records]
    assert (sample.rows, sample.origin) == (5000, "its source")
    assert ROWS <= len(kept) <= 2 * ROWS
    assert {b - a for a, b in pairwise(kept)} == {8, 16}  # 16 where the broken row would be
    ingest(IngestConfig(source=str(tmp_path / "r.jsonl")), str(tmp_path / "pool"))
    again = look(IngestConfig(source=str(tmp_path / "r.jsonl")), str(tmp_path / "pool"))
    assert (again.rows, len(again.records), again.origin) == (4999, ROWS, "the pool")


def test_a_source_without_a_usable_row_is_refused(tmp_path):
    (tmp_path / "r.jsonl").write_text("{}\n" * 5)
    with pytest.raises(InputError, match="none of 5 sampled rows is usable"):
        look(IngestConfig(source=str(tmp_path / "r.jsonl")), str(tmp_path / "pool"))


def test_a_tokenizer_that_is_there_measures_the_source(values, tiny_model):
    measured = lines(values, model={"path": tiny_model})["proxy"].price
    guessed = lines(values)["proxy"].price
    assert "60 rows of its source, encoded" in measured.how[0]
    assert measured.tokens == pytest.approx(guessed.tokens, rel=0.4)


def test_estimates_are_cut_at_max_len_and_say_when_nothing_fits(tiny_model):
    from vinnow.models.encoding import make_encoder
    from vinnow.models.load import load_processor

    sample = Sample(1, [row(10_000)], "the pool")
    assert estimate_sizes(sample, "v1", 300, 16).longest == 300
    two = Record(0, "s", "t", (), [*row(5).conversations, *row(5).conversations], {})
    with pytest.raises(InputError, match="no sampled row fits"):
        estimate_sizes(Sample(1, [two], "the pool"), "plain", 300, 16)
    with pytest.raises(InputError, match="no sampled row fits"):
        encode_sizes(sample, make_encoder(load_processor(tiny_model), max_len=8))


def test_memory_and_price_of_the_7b_shape_are_those_of_the_spec(values):
    run = run_of(values, model={"twin": SEVEN})
    # 576 image tokens and about 200 of text
    prices = Prices(run, {"pool": Sample(665_298, [row(580)], "the pool"), "target": Sample(9, [row(580)], "the pool")})
    proxy = TrainRecipe(parts=["projector", "lora"], lora={"r": 128})
    config = FeatureConfig(
        which="projector+lora", projection={"kind": "sjlt"}, precision="bfloat16", token_budget=16 * 800
    )
    price = prices.feature(config, "pool", 1, proxy)
    assert price.tokens == pytest.approx(776, rel=0.02)
    assert sum(price.row.values()) == pytest.approx(22.96, rel=0.03)
    # 14 GB of weights, 61 GB of activations for 16 rows (spec LESS §6.3), one module's gradients
    assert price.memory == pytest.approx(14e9 + 0.7e9 + 61e9 + 16 * 45e6 * 2, rel=0.03)
    assert price.hours == pytest.approx(
        665_298 / rate_for(prices.rates, "gradient", "sjlt").samples_per_s / 3600, rel=0.03
    )
    four = prices.feature(config, "pool", 4, proxy)
    assert four.memory - price.memory == 3 * 340_795_392 * 2
    influence = FeatureConfig(kind="influence", which="projector+lora", precision="bfloat16", token_budget=16 * 800)
    exact = prices.feature(influence, "pool", 1, proxy)
    assert exact.memory > price.memory
    # the targets' means take two passes over 9 rows
    assert exact.tflop == pytest.approx((665_298 + 18) * sum(exact.row.values()), rel=1e-3)
    full = TrainRecipe(precision="bfloat16", zero_stage=3, workers=8, global_batch=128)
    alone = full.model_copy(update={"workers": 1, "zero_stage": 2})
    state = 14 * sum(prices.after(full).parameters()[p] for p in full.parts)
    saved = prices.training(alone, "pool", 1).memory - prices.training(full, "pool", 1).memory
    assert saved == pytest.approx((state + 14.1e9) * 7 / 8, rel=0.02)


def test_moments_and_resumable_states_take_room(values):
    prices = Prices(run_of(values), {})
    config = TrainRecipe(checkpoint_count=2, resume_steps=4)
    parameters = prices.after(config).parameters()
    trained, every = parameters["projector"] + parameters["language_model"], sum(parameters.values())
    assert prices.disk(config, 4) == 3 * 4 * every
    assert prices.disk(config, 5) == 3 * 4 * every + 4 * every + 12 * trained
    assert prices.disk(config, 50) == 3 * 4 * every + 2 * (4 * every + 12 * trained)
    assert prices.disk(config.model_copy(update={"save_moments": True}), 4) == 3 * 4 * every + 2 * 8 * trained


def test_mores_and_other_adapters_are_priced_through_the_decoder(values):
    prices = Prices(run_of(values, model={"twin": SEVEN}), {"pool": Sample(9, [row(580)], "the pool")})
    mores = TrainRecipe(parts=["projector", "mores"], mores={"rank": 4})
    alone = mores.model_copy(update={"parts": ["projector"], "mores": None})
    assert prices.after(mores).parameters()["mores"] == 1_048_704
    assert prices.disk(mores, 4) == 4 * (1_048_704 + prices.after(mores).parameters()["projector"])
    assert prices.training(mores, "pool", 9).row == prices.training(alone, "pool", 9).row
    only = mores.model_copy(update={"parts": ["mores"]})
    assert prices.training(only, "pool", 9).tflop < prices.training(mores, "pool", 9).tflop
    ia3 = TrainRecipe(parts=["lora"], peft={"method": "ia3"})
    assert prices.training(ia3, "pool", 9).tflop == prices.training(only, "pool", 9).tflop
    dora = {"parts": ["lora"], "peft": {"method": "dora"}}
    lora = TrainRecipe(parts=["lora"], lora={})
    assert prices.after(TrainRecipe(**dora)).linears == prices.after(lora).linears


def test_a_warm_up_with_lora_makes_an_adapter(values):
    lora = {"parts": ["lora"], "lora": {"r": 4, "alpha": 8}}
    plan = lines(values, warmup=[{"name": "a", "data": "pool", "train": STEP | lora}])
    assert "lora fwd" in plan["proxy"].price.row
    assert "lora fwd" not in lines(values)["proxy"].price.row
    with pytest.raises(InputError, match="For lora the proxy must be trained with LoRA"):
        lines(values, features=[{"kind": "gradient", "which": "lora"}])


def test_the_printed_plan_says_where_its_figures_come_from(values, capsys):
    run = run_of(values, plan={"tflops": 100})
    print_plan(run, make_plan(run))
    shown = " ".join(capsys.readouterr().out.split())
    assert "one GPU at the 100 TFLOP/s of plan.tflops: proxy, features-gradient" in shown
    assert "estimated from the characters of 60 rows of its source, 3.6 per token" in shown
    assert "TFLOP per row: vision fwd:" in shown
    assert "not priced" in shown


def test_a_plan_says_first_what_it_comes_to(values, capsys):
    money = {"tflops": 1e-6, "gpu_hour_price": 2.0, "gpu_memory_gb": 0.001}
    run = run_of(values, plan=money, actors={"actors": 2, "gpus_per_actor": 1}, seeds=[0, 1])
    plan = make_plan(run)
    summary = summarise(run, plan)
    by_stage = {line.stage: line.price.hours for line in plan if line.price}
    assert summary.total == pytest.approx(sum(by_stage.values()))
    chosen = ("proxy", "features-gradient", "targets-gradient")
    assert summary.selection == pytest.approx(sum(by_stage[n] for n in chosen))
    assert summary.everything == pytest.approx(by_stage["sweep-full-100%"] / 2)  # one of two seeds
    assert summary.money == pytest.approx(2 * summary.total)
    assert summary.bytes == sum(line.bytes for line in plan)
    assert summary.wall_hours is None  # trainings run on CPUs here
    assert [text.split()[0] for text in summary.too_large] == list(by_stage)
    print_plan(run, plan)
    first = capsys.readouterr().out.splitlines()[:5]
    assert [line.split(":")[0].split()[0] for line in first[1:4]] == ["selection", "wall", "money"]
    assert f"{summary.money:,.2f} at 2 per GPU-hour" in first[3]
    assert first[4].startswith("does not fit: proxy needs")
    told = json.loads(json.dumps(plan_json(run, plan), allow_nan=False))
    assert told["summary"]["total"] == summary.total
    assert [s["stage"] for s in told["stages"]] == [line.stage for line in plan]


def test_wall_time_shares_the_work_of_all_devices(values):
    gpu = STEP | {"use_gpu": True, "workers": 2, "micro_batch": 4}
    one = {"actors": {"actors": 4, "gpus_per_actor": 1}, "proxy": gpu | {"checkpoint_count": 2}, "finetune": gpu}
    run = run_of(values, **one, sweep={"concurrent": 2})
    plan = make_plan(run)
    hours = {line.stage: line.price.hours for line in plan if line.price}
    shared = {n: h / (4 if n.split("-")[0] in ("features", "targets") else 2) for n, h in hours.items()}
    trials = sum(h for n, h in shared.items() if n.startswith("sweep")) / 2
    rest = sum(h for n, h in shared.items() if not n.startswith("sweep"))
    assert summarise(run, plan).wall_hours == pytest.approx(rest + trials)


def test_zero_3_has_a_rate_of_its_own(values):
    rates = load_rates(PlanConfig())
    slow, usual = rate_for(rates, "training", zero_stage=3), rate_for(rates, "training", zero_stage=2)
    assert (slow.zero_stage, usual.zero_stage) == (3, None)
    assert usual == rate_for(rates, "training")
    zero3 = lines(values, finetune=STEP | {"zero_stage": 3})["sweep-full-100%"].price
    zero2 = lines(values, finetune=STEP)["sweep-full-100%"].price
    assert zero3.hours / zero2.hours == pytest.approx(usual.tflops / slow.tflops)


def test_an_embedding_is_priced_as_a_forward_pass(values):
    def price(**feature):
        section = {"kind": "embedding", "max_len": 256} | feature
        name = f"features-{section['kind']}"
        return lines(values | {"features": [section]})[name]

    loss, text, image, both = price(kind="loss"), price(), price(pooling="image"), price(pooling="both")
    assert text.price.row == {k: v for k, v in loss.price.row.items() if k != "lm_head fwd"}
    assert set(image.price.row) == {"vision fwd", "projector fwd"}
    assert (image.bytes, both.bytes) == (text.bytes, 2 * text.bytes)
    assert price(dtype="float16").bytes == text.bytes / 2
