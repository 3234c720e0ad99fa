"""Shared by all tests: one Ray cluster a session, one tiny twin, one small pool with pictures."""

import json
import os
import random

os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="0.2",
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_USAGE_STATS_ENABLED="0",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    HF_HUB_OFFLINE="1",
    DS_ACCELERATOR="cpu",
)

import pytest
from PIL import Image, ImageDraw

COLORS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 200, 0), "black": (0, 0, 0)}
SHAPES = ("circle", "rectangle")


@pytest.fixture(scope="session")
def ray_cluster():
    """One small local cluster for the whole session: 4 logical CPUs, 500 MB of object store."""
    import ray

    ray.init(
        num_cpus=4,
        object_store_memory=500_000_000,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


def make_records(n: int, seed: int = 0) -> tuple[list[dict], dict[str, Image.Image]]:
    """Return `n` LLaVA records (one in five text-only, one to four turns) and their pictures by relative path."""
    rng = random.Random(seed)
    records, pictures = [], {}
    for i in range(n):
        color, shape = rng.choice(list(COLORS)), rng.choice(SHAPES)
        turns = [
            ("what color is the shape?", color, "color"),
            ("what shape is in the image?", shape, "shape"),
            (f"is there a {color} shape?", "yes", "is_color"),
            (f"does the image contain a {shape}?", "yes", "is_shape"),
        ]
        rng.shuffle(turns)
        turns = turns[: rng.randint(1, 4)]
        text_only = i % 5 == 4
        conversations = []
        for k, (question, answer, _) in enumerate(turns):
            mark = "<image>\n" if k == 0 and not text_only else ""
            conversations += [{"from": "human", "value": mark + question}, {"from": "gpt", "value": answer}]
        record = {"id": f"r{i}", "conversations": conversations, "task": turns[0][2], "source": "text" if text_only else "shapes"}
        if not text_only:
            record["image"] = f"pics/{i}.png"
            pictures[record["image"]] = _draw(color, shape, rng)
        records.append(record)
    return records, pictures


def write_records(folder, records, pictures) -> str:
    """Write records and pictures as LLaVA ships them and return the JSON's path; the image root is `folder/images`."""
    for relative, picture in pictures.items():
        path = folder / "images" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    source = folder / "records.json"
    source.write_text(json.dumps(records))
    return str(source)


@pytest.fixture(scope="session")
def tiny_pool(tmp_path_factory) -> str:
    """A POOL folder of 60 rows (12 text-only), made by the real ingest."""
    from vinnow.pool.ingest import IngestConfig, ingest

    folder = tmp_path_factory.mktemp("tiny")
    source = write_records(folder, *make_records(60))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


@pytest.fixture(scope="session")
def target_pool(tmp_path_factory) -> str:
    """A small target POOL (9 rows) of its own."""
    from vinnow.pool.ingest import IngestConfig, ingest

    folder = tmp_path_factory.mktemp("target")
    source = write_records(folder, *make_records(9, seed=99))
    ingest(IngestConfig(source=source, image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


@pytest.fixture(scope="session")
def twin_path(tmp_path_factory) -> str:
    """A two-layer LLaVA with random weights, its tokenizer trained on the tiny pool's words."""
    from vinnow.models.tiny import TwinConfig, build_twin

    texts = [turn["value"] for record in make_records(60)[0] for turn in record["conversations"]]
    return build_twin(str(tmp_path_factory.mktemp("twin") / "model"), texts, TwinConfig())


def _draw(color: str, shape: str, rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (240, 240, 250))
    x, y, r = rng.randint(4, 36), rng.randint(4, 36), rng.randint(12, 24)
    draw = ImageDraw.Draw(picture)
    (draw.ellipse if shape == "circle" else draw.rectangle)((x, y, x + r, y + r), fill=COLORS[color])
    return picture
