"""Rows on disk and models of random weights that know them: what the benchmarks of whole stages work on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from vinnow.pool.ingest import IngestConfig, ingest

TEXT = "the a red blue cat dog stands on under near table chair what colour is how many things do you see"
WORDS = TEXT.split()
PICTURES = 64


def write_pictures(folder: Path, rng: np.random.Generator) -> None:
    """Write `PICTURES` JPEG files of 640 × 480 to FOLDER/images."""
    (folder / "images").mkdir(parents=True)
    for i in range(PICTURES):
        low = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(low).resize((640, 480)).save(folder / "images" / f"{i}.jpg")


def ingested(folder: Path, records: list[dict[str, Any]]) -> str:
    """Ingest LLaVA records that show these pictures; returns the pool."""
    (folder / "data.json").write_text(json.dumps(records))
    ingest(IngestConfig(source=str(folder / "data.json"), image_root=str(folder / "images")), str(folder / "pool"))
    return str(folder / "pool")


def write_random(config: Any, processor: Any, folder: Path) -> Any:
    """Write a model of random weights, made on the GPU, and its processor; returns the model."""
    from _llava7b import on_gpu

    config.image_token_index = config.image_token_id = processor.image_token_id
    model = on_gpu(config)
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
    return model
