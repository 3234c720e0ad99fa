"""A run whose model would refuse too many rows ends before it takes a device, and says which and what to do."""

import json

import pytest
from PIL import Image
from vinnow.models import registry
from vinnow.pipelines.runs import fitting
from vinnow.pipelines.runs.config import resolve
from vinnow.pipelines.runs.run import run_stages
from vinnow.store.errors import InputError

LONG = "what is in the image, where does it stand, and who put it there? " * 12


def long(number):
    """A question whose second picture stands behind a long text."""
    return f"<image> {LONG}{number} <image>", ["a.png", "b.png"]


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """A pool of 20 rows whose second picture stands behind a long text in every fifth, and a tiny model."""
    folder = tmp_path_factory.mktemp("fitting")
    for name in "ab":
        Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / f"{name}.png")
    asked = [("<image>\nwhat is it?", ["a.png"]) if n % 5 else long(n) for n in range(20)]
    records = [
        {"image": images, "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "a red square"}]}
        for text, images in asked
    ]
    (folder / "train.json").write_text(json.dumps(records))
    words = ["what is in the image?", "a red square", "user assistant system You are a helpful assistant."] * 20
    model = registry.families()["qwen2_5_vl"].tiny(str(folder / "model"), words)
    pool = {"source": str(folder / "train.json"), "image_root": str(folder)}
    feature = {"kind": "embedding", "template": "own", "max_len": 100}
    return {
        "out": str(folder / "run"),
        "model": {"path": model},
        **{"pool": pool, "test": pool},
        "finetune": {"parts": ["projector"], "template": "own", "max_len": 900, "warmup_ratio": 0},
        "features": [feature],
        "selectors": [{"name": "diverse"}],
        "budgets": ["50%"],
    }


def test_a_run_that_would_lose_too_many_rows_starts_no_actor(values, monkeypatch):
    from vinnow.actors import cluster, stream

    def never(*_, **__):
        raise AssertionError("it was started")

    monkeypatch.setattr(cluster, "ensure_ray", never)
    monkeypatch.setattr(stream, "run_features", never)
    with pytest.raises(InputError, match=r"4 of 20 rows \(20\.0%\) would be refused \(picture_cut 4\)") as caught:
        run_stages(resolve(values))
    said = str(caught.value)
    assert "features-embedding: " in said
    assert "max_len is 100" in said
    assert "give a larger max_len, or accept the loss with a larger max_refused" in said


def test_a_loss_that_is_accepted_is_told(values, tmp_path, monkeypatch):
    from vinnow.pool.ingest import IngestConfig, ingest

    pool, told = str(tmp_path / "pool"), []
    ingest(IngestConfig(**values["pool"]), pool)
    config = resolve(values).features[0]
    monkeypatch.setattr(fitting, "tell", told.append)
    fitting.check_fit("features-embedding", pool, values["model"]["path"], config, (None, 0.2))
    assert len(told) == 1
    assert told[0].startswith("features-embedding: 4 of 20 rows (20.0%) would be refused (picture_cut 4); record ")
    roomy = config.model_copy(update={"max_len": 900})
    fitting.check_fit("features-embedding", pool, values["model"]["path"], roomy, (None, 0.0))
    assert len(told) == 1
    config = config.model_copy(update={"max_len": 101})
    fitting.check_fit("features-embedding", pool, values["model"]["path"], config, ("s3://bucket/images", 0.0))
    assert "object store" in told[1]
