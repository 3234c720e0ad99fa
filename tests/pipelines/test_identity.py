"""Every field of a run is free to change, makes it grow, or changes what stages made: none is forgotten."""

import json

import pytest
from vinnow.actors.config import FeatureConfig
from vinnow.actors.registry import find, names
from vinnow.evaluate.config import JOB as EVAL_FILLED
from vinnow.evaluate.config import EvalConfig
from vinnow.models.specs import TinyModelConfig
from vinnow.pipelines.runs.config import (
    ModelSection,
    RunConfig,
    SelectorSection,
    SweepSection,
    resolve,
)
from vinnow.pipelines.runs.growth import compare
from vinnow.pipelines.runs.identity import (
    EVAL_FREE,
    FEATURE_FREE,
    POOL_FREE,
    RUN_FREE,
    TRAIN_FREE,
    how_asked,
    how_trained,
    without,
)
from vinnow.pipelines.runs.sections import StageSection
from vinnow.pipelines.runs.stages import stages_of
from vinnow.pool.ingest import IngestConfig
from vinnow.train.config import JOB as TRAIN_FILLED
from vinnow.train.config import TrainConfig

STEP = {"max_len": 256, "max_steps": 3, "global_batch": 8, "micro_batch": 4}
POOL = {"source": "p"}
RUN = {
    **{"out": "o", "pool": POOL, "captions": POOL, "target": POOL, "test": POOL, "model": {"twin": {}}},
    **{"warmup": [{"name": "one", "train": STEP}], "proxy": STEP | {"checkpoint_count": 2}, "budgets": ["10%"]},
    **{"features": [{"kind": "gradient"}, {"kind": "influence"}], "selectors": [{"name": "random"}, {"name": "less"}]},
    **{"finetune": STEP, "evaluate": {"benchmark": "short_answer"}, "seeds": [0]},
}
# every section of a run: `--set`s that are free, that add, and that change what is there, each with the first stage
SECTIONS = {
    "out": {},
    "ray": {"ray.num_cpus=3": "free"},
    "actors": {"actors.actors=2": "free", "actors.gpus_per_actor=1": "free", "actors.loaders=2": "free"},
    "plan": {"plan.tflops=3": "free"},
    "devices": {"devices={gpus: 1}": "free"},
    "seed": {"seed=1": "warmup-one"},
    "pool": {
        "pool.source=q": "ingest-pool",
        "pool.workers=2": "free",
        "pool.share=[0, 0.5]": "ingest-pool",
        "pool.image_root=i": "ingest-pool",
    },
    "captions": {"captions.source=q": "ingest-captions"},
    "target": {"target.max_pixels=99": "ingest-target"},
    "test": {"test.source=q": "longer", "test.max_refused=1": "free"},
    # it is gone into the pools' shares by then
    "held_out": {"held_out={test: 0.1}": "free"},
    "model": {"model.twin.layers=3": "twin", "model={path: m}": "warmup-one"},
    "warmup": {"warmup.0.train.lr=1": "warmup-one", "warmup.0.data=pool": "warmup-one", "warmup=[]": "proxy"},
    "proxy": {"proxy.epochs=2": "proxy", "proxy.cache_mb=9": "free", "proxy.checkpoint_count=3": "proxy"},
    "features": {
        "features.0.mode=sign": "features-gradient",
        "features.0.max_rows=3": "free",
        "features.0.name=other": "features-other",
        "features.1.precision=float64": "features-influence",
    },
    "selectors": {
        "selectors.1.config.aggregate=mean": "select",
        "selectors.1.config.targets=[x]": "select",
        "selectors.1.pick=round_robin": "select",
        "selectors.1.pick=[own, round_robin]": "adds",
        "selectors=[{name: less}, {name: random}]": "free",
        "selectors=[{name: less}, {name: random}, {name: less, label: b, config: {aggregate: mean}}]": "adds",
        "selectors=[{name: random}]": "takes away",
    },
    "budgets": {'budgets=["10%", 7]': "adds", "budgets=[7]": "adds"},
    "seeds": {"seeds=[0, 4]": "adds", "seeds=[4]": "adds"},
    "finetune": {
        "finetune.lr=1": "sweep",
        "finetune.workers=2": "free",
        "finetune.use_gpu=true": "free",
        "finetune.trackers=[wandb]": "free",
        "finetune={variants: {a: {}}}": "adds",
    },
    "evaluate": {"evaluate.max_new_tokens=3": "sweep", "evaluate.actors=3": "free", "evaluate.template=plain": "sweep"},
    "sweep": {
        "sweep.concurrent=3": "free",
        "sweep.trackers=[wandb]": "free",
        "sweep.tracker_project=p": "free",
        # what is trained stays; which questions and choices are in verdicts is said by the sweep itself
        "sweep.eta=2": "free",
        "sweep.rung_share=0.5": "free",
        "sweep.device_hours=3": "free",
        "sweep.full=false": "takes away",
    },
}
# of each config: the fields that change numbers, or how parts are cut. A new one belongs here, or to what is free
IDENTITY = {
    IngestConfig: "source image_root format split share layout check_images duplicates max_pixels tokenizer follow_links",
    TrainConfig: "parts lora peft quantise mores template image_mode pictures max_len lr projector_lr mores_lr "
    "weight_decay warmup_ratio schedule epochs max_steps global_batch zero_stage offload compile precision grad_clip "
    "group_by_modality loss_mean checkpoint_count checkpoint_steps checkpoint_start checkpoint_limit checkpoint_weights "
    "save_moments validation log_steps use_gpu workers micro_batch",
    EvalConfig: "benchmark template image_mode pictures max_len max_new_tokens precision rows_per_part",
    FeatureConfig: "kind name template image_mode pictures max_len precision dtype rows_per_part",
}
# of what is no stage's own config: all of its fields, each of which a `--set` above changes, or another config holds
HELD = {
    ModelSection: "path twin",
    StageSection: "name data train",
    SelectorSection: "name config label reads pick",
    SweepSection: "concurrent full search eta rung_share device_hours trackers tracker_project",
}


def run_of(*sets):
    return resolve(json.loads(json.dumps(RUN)), list(sets))


def said(entry):
    """Return what an entry does to a run that has done everything, and the first stage that it would redo."""
    before = run_of()
    done = {item.key: "done" for stage in stages_of(before) for item in stage.items()}
    growth = compare(before, run_of(entry), done)
    if growth.redone:
        assert growth.why, entry
        return next(iter(growth.redone))
    if growth.longer:
        return "longer"
    return "adds" if growth.added else "takes away" if growth.removed else "free"


def test_every_section_is_here():
    assert SECTIONS.keys() == RunConfig.model_fields.keys()
    assert {n for n, entries in SECTIONS.items() if set(entries.values()) <= {"free"}} == set(RUN_FREE)


@pytest.mark.parametrize("entry", [e for entries in SECTIONS.values() for e in entries])
def test_what_a_change_means(entry):
    meant = next(entries[entry] for entries in SECTIONS.values() if entry in entries)
    if entry == "features.0.name=other":  # a new feature; LESS then lacks what it reads
        entry, meant = "features=[{kind: gradient}, {kind: influence}, {kind: loss}]", "adds"
    assert said(entry) == meant


def test_every_field_is_classified():
    free = {
        IngestConfig: POOL_FREE,
        TrainConfig: (*TRAIN_FREE, *TRAIN_FILLED),
        EvalConfig: (*EVAL_FREE, *EVAL_FILLED),
        FeatureConfig: FEATURE_FREE,
    }
    for config, listed in IDENTITY.items():
        fields, counted = set(config.model_fields), set(listed.split())
        assert counted | (set(free[config]) & fields) == fields, config
        assert not counted & set(free[config]), config
    for config, listed in HELD.items():
        assert set(listed.split()) == set(config.model_fields), config


def test_what_counts_is_what_stages_hold():
    training, pace = how_trained(TrainConfig(model="m", pool="p"))
    assert set(training) | set(pace) == set(IDENTITY[TrainConfig].split())
    assert set(pace) == {"use_gpu", "workers", "micro_batch"}
    assert set(how_trained(TrainConfig(model="m", pool="p", loss_mean="micro_batch"))[1]) == {"use_gpu"}
    assert set(how_asked(EvalConfig(model="m", pool="p", run="r"))) == set(IDENTITY[EvalConfig].split())
    assert set(without(IngestConfig(source="s"), *POOL_FREE)) == set(IDENTITY[IngestConfig].split())
    for kind in names():  # all of a kind's own fields count
        own = find(kind).Config.model_fields.keys() - FeatureConfig.model_fields.keys()
        held = set(without(FeatureConfig(kind=kind), *FEATURE_FREE))
        assert held == own | set(IDENTITY[FeatureConfig].split())
    (twin,) = (s for s in stages_of(run_of()) if s.name == "twin")
    assert set(twin.settings()["model.twin"]) == set(TinyModelConfig.model_fields)


def test_a_training_under_way_keeps_its_pace():
    before, now = run_of(), run_of("finetune.micro_batch=8", "proxy.workers=2")
    assert compare(before, now, {}).redone == {}
    growth = compare(before, now, {"trial random-10pct-s0": "under way", "proxy": "done"})
    assert growth.redone == {"sweep": ["trial random-10pct-s0"]}
    assert growth.why == ["finetune.micro_batch: was 4, is 8"]
