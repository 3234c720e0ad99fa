"""Every kind of feature as a stage on a GPU, on a model of the demo's head width (24, no power of two)."""

from dataclasses import replace

import numpy as np
import pytest
from pictures import make_records
from vinnow.actors.config import CheckpointRef, FeatureConfig
from vinnow.actors.stream import make_spec, run_inline
from vinnow.models.family.of_llava.tiny import build_tiny_model
from vinnow.models.specs import TinyModelConfig
from vinnow.store.features import FeatureSet

SMALL = {"rows_per_part": 16, "token_budget": 900}
CONFIGS = {
    "rademacher": {"kind": "gradient", "projection": {"kind": "rademacher", "dim": 96}},
    "sjlt": {"kind": "gradient", "projection": {"kind": "sjlt", "dim": 64}, "dtype": "float16"},
    "kron": {"kind": "gradient", "projection": {"kind": "kron", "dim": 96}, "which": r"re:projector|q_proj|down_proj"},
    "sign": {"kind": "gradient", "projection": {"dim": 64}, "mode": "sign", "dtype": "int8"},
    "influence": {"kind": "influence"},
    "flat": {"kind": "trajectory", "attention": "flat"},
    "heads": {"kind": "trajectory", "attention": "heads"},
    "loss": {"kind": "loss"},
    "embedding": {"kind": "embedding", "pooling": "both"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_every_kind_runs_on_a_gpu_with_the_demos_head_width(tiny_pool, target_pool, tmp_path, name, precision):
    texts = [turn["value"] for record in make_records(60)[0] for turn in record["conversations"]]
    sizes = TinyModelConfig(vision_hidden=60, hidden=96, layers=3, heads=4, ffn=190, init_std=0.1)
    path = build_tiny_model(str(tmp_path / "twin"), texts, sizes)
    tables = {}
    for device, chosen in (("cpu", "float32"), ("cuda", precision)):
        config = FeatureConfig.parse(CONFIGS[name] | SMALL | {"precision": chosen})
        aim = target_pool if config.kind == "influence" else None
        spec = make_spec(tiny_pool, [CheckpointRef(1, path)], config, str(tmp_path / device), target_pool=aim)
        run_inline(replace(spec, device=device))
        rows = FeatureSet(str(tmp_path / device), config.kind).load(1)
        tables[device] = rows.vec[np.argsort(rows.ids)].astype(np.float64)
    assert np.isfinite(tables["cuda"]).all()
    assert tables["cuda"].shape == tables["cpu"].shape
    gap = np.linalg.norm(tables["cuda"] - tables["cpu"]) / np.linalg.norm(tables["cpu"])
    # one sign of a gradient near zero turns at a rounding
    limit = {"float32": 0.02 if name == "sign" else 1e-2 if name == "sjlt" else 1e-3, "bfloat16": 0.5}[precision]
    assert gap <= limit
