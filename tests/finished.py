"""A finished run of a tiny model, made here without Ray: what its stages leave is theirs, but nothing is trained."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from pictures import make_records, write_records
from vinnow.actors import cluster, stream
from vinnow.actors.pool import run_shards
from vinnow.evaluate import shards as eval_shards
from vinnow.pipelines.runs import begin, sweep
from vinnow.pipelines.runs.trial import run_trial
from vinnow.store.errors import VinnowError, one_line
from vinnow.store.files import whole_folder, write_json, write_lines
from vinnow.train import run as training

STEP = {"max_len": 256, "lr": 1e-3, "global_batch": 8, "micro_batch": 8, "max_steps": 3}


def drive(desk):
    """Run a sweep's trials one after another, here, in the place of Tune."""
    names = {t.name for t in desk.trials}
    while (trial := desk.next(names)) is not None:
        fault = None
        try:
            run_trial(trial.as_dict())
        except VinnowError as error:
            fault = one_line(error)
        desk.ended(trial.name, fault)


STAND_INS = {
    (cluster, "ensure_ray"): lambda config: None,
    (sweep, "ensure_ray"): lambda config: None,
    (begin, "require_workers"): lambda config, what: None,
    (sweep, "require_trials"): lambda trials: None,
    (stream, "run_features"): lambda spec, *_: stream.run_inline(spec),
    (training, "_fit"): lambda config, out, callbacks: _leave(config, out),
    (eval_shards, "run_shards"): lambda items, pools, flow: run_shards(items, pools, replace(flow, inline=True)),
    (sweep, "_tune"): drive,
}


@dataclass(frozen=True)
class Finished:
    """A run's folder and its YAML."""

    out: Path
    yaml: Path
    config: dict


def values_of(folder: Path) -> dict:
    """A run's plain values, on 30 + 9 + 9 rows; writes its sources."""
    pools = {}
    for name, rows in (("pool", 30), ("target", 9), ("test", 9)):
        (folder / name).mkdir(parents=True)
        source = write_records(folder / name, *make_records(rows, seed=rows))
        pools[name] = {"source": source, "image_root": str(folder / name / "images")}
    return pools | {
        "out": str(folder / "out"),
        "model": {"twin": {}},
        "proxy": STEP | {"checkpoint_count": 2},
        "features": [{"kind": "gradient", "projection": {"dim": 64}}, {"kind": "trajectory"}],
        "selectors": [{"name": "random"}, {"name": "less"}, {"name": "xmas"}],
        "budgets": ["20%"],
        "finetune": STEP,
        "evaluate": {"benchmark": "short_answer", "max_len": 256, "max_new_tokens": 2},
        "sweep": {"full": False},
    }


def finish(folder: Path, patch) -> Finished:
    """Do the whole run."""
    from foreign import vinnow

    config = values_of(folder)
    (folder / "run.yaml").write_text(json.dumps(config))
    for (where, name), stand_in in STAND_INS.items():
        patch.setattr(where, name, stand_in)
    said = vinnow("run", folder / "run.yaml", seconds=200)
    assert said.code == 0 and not said.trace, said.text + said.trace  # noqa: PT018
    return Finished(folder / "out", folder / "run.yaml", config)


def _leave(config, out) -> None:
    """Leave what a training leaves, with the model that it began from."""
    rows = [{"step": n, "total_steps": 3, "loss": 2.0, "lr": 1e-3, "tokens": 9, "seconds": 0.1} for n in (1, 2, 3)]
    write_lines(os.path.join(out, "log.jsonl"), rows)
    write_json(os.path.join(out, "engine.json"), {"engine": "none", "rows": 8})
    for name in ("model", *(f"checkpoint-{n}" for n in config.planned_checkpoints(3))):
        place = os.path.join(out, name)
        if not os.path.isdir(place):
            with whole_folder(place) as folder:
                shutil.copytree(config.model, folder, dirs_exist_ok=True)
