"""Models of families in their published shapes with random weights, made on the device, and rows with pictures for them."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _rows import WORDS
from PIL import Image
from transformers import AutoConfig
from vinnow.models.cost import RowSize
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.load import Loaded, load, load_processor
from vinnow.models.registry import families
from vinnow.pool.batching import token_batches
from vinnow.pool.collate import collate
from vinnow.pool.encode import Encoded
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.reader import Pool

_QWEN25_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
_QWEN25_VISION |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
_QWEN25_TEXT = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
_QWEN25_TEXT |= {"num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768}
_QWEN25_TEXT |= {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}}
_QWEN3_VISION = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096}
_QWEN3_VISION |= {"patch_size": 16, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24]}
_QWEN3_TEXT = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32}
_QWEN3_TEXT |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 262144}
_ROPE = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, "rope_theta": 5e6}
_QWEN3_TEXT |= {"rope_parameters": _ROPE}


@dataclass(frozen=True)
class Published:
    """A published model: its sections of config.json, and the pixels that one image token is wide."""

    label: str
    vision: dict[str, Any]
    text: dict[str, Any]
    side: int


PUBLISHED = {
    "qwen2_5_vl": Published("Qwen2.5-VL-7B", _QWEN25_VISION, _QWEN25_TEXT, 28),
    "qwen3_vl": Published("Qwen3-VL-8B", _QWEN3_VISION, _QWEN3_TEXT, 32),
}
# pictures in image tokens, wide × high: 256, 391, 768, 1200 and 1260 of them
GRIDS = ((16, 16), (23, 17), (32, 24), (40, 30), (36, 35))
TINY_GRIDS = ((2, 2), (3, 2), (4, 4))


@dataclass
class Bench:
    """A family's folder (config and processor; weights in the tiny one alone), its pool, and where it is measured."""

    name: str
    folder: str
    pool: str
    tiny: bool
    device: str

    @property
    def label(self) -> str:
        """What people call the model."""
        return f"tiny {self.name}" if self.tiny else PUBLISHED[self.name].label

    def config(self) -> Any:
        """Return the model's config."""
        return AutoConfig.from_pretrained(self.folder)

    def load(self) -> Loaded:
        """Return the model in eval mode: weights are drawn on the device in bf16, or are the tiny one's."""
        if self.tiny:
            return load(self.folder)
        torch.manual_seed(0)
        kind, how = families()[self.name].class_of(None), {"attn_implementation": "sdpa", "dtype": torch.bfloat16}
        with torch.device(self.device):
            model = kind._from_config(self.config(), **how)
        return Loaded(model.eval(), load_processor(self.folder), self.folder)

    def rows(self) -> list[Encoded]:
        """Return the pool's rows with their pictures, as the feature stage makes them."""
        processor, pool = load_processor(self.folder), Pool(self.pool)
        encoder = make_encoder(processor, default_template(self.folder), 2048)
        rows = []
        for record in pool.take(np.sort(pool.ids())):
            row = encoder.encode(record, encoder.sizes(pool.image_root, record))
            shown = [encoder.load(pool.image_root, image, among=len(record.images)) for image in row.images]
            rows.append(row.showing(shown))
        return rows

    def batches(self, rows: list[Encoded], budget: int) -> list[dict[str, Any]]:
        """Return them in batches under a budget of tokens, on the device's doorstep."""
        processor = load_processor(self.folder)
        encoder = make_encoder(processor, default_template(self.folder), 2048)
        pad, lengths = processor.tokenizer.pad_token_id, [len(r.input_ids) for r in rows]
        return [encoder.finish(collate([rows[i] for i in take], pad)) for take in token_batches(lengths, budget, 16)]


def prepare(name: str, folder: Path, tiny: bool, rows: int) -> Bench:
    """Write a family's config, processor, pictures and pool."""
    family, published = families()[name], PUBLISHED[name]
    texts = [" ".join(WORDS), "user assistant system You are a helpful assistant."] * 50
    small = family.tiny(str(folder / "tiny"), texts)
    target, side, grids = Path(small), 16, TINY_GRIDS
    if not tiny:
        target, side, grids = folder / "model", published.side, GRIDS
        ids = {n: v for n, v in AutoConfig.from_pretrained(small).to_dict().items() if n.endswith("_token_id")}
        config = type(AutoConfig.from_pretrained(small))(
            vision_config=published.vision, text_config=published.text, **ids
        )
        processor = family.load_processor(Path(small))
        most = {"shortest_edge": side**2, "longest_edge": side**2 * 1280}
        images = type(processor.image_processor)(patch_size=published.vision["patch_size"], size=most)
        processor.image_processor = images
        config.save_pretrained(target)
        processor.save_pretrained(str(target))
    pool = _write_pool(folder, [(w * side, h * side) for w, h in grids], rows, 8 if tiny else 60)
    return Bench(name, str(target), pool, tiny, "cuda" if torch.cuda.is_available() else "cpu")


def _write_pool(folder: Path, sizes: list[tuple[int, int]], rows: int, words: int) -> str:
    rng, images = np.random.default_rng(0), folder / "images"
    images.mkdir()
    for number, size in enumerate(sizes):
        low = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(low).resize(size).save(images / f"{number}.jpg")
    records = []
    for i in range(rows):
        question, answer = (" ".join(rng.choice(WORDS, n)) for n in (words // 3, words))
        turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        records.append({"id": str(i), "image": f"{i % len(sizes)}.jpg", "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))
    ingest(IngestConfig(source=str(folder / "data.json"), image_root=str(images)), str(folder / "pool"))
    return str(folder / "pool")


def row_size(rows: list[Encoded], image_id: int) -> RowSize:
    """Return the mean row, as prices go by."""
    tokens = np.array([len(r.input_ids) for r in rows], float)
    labels = np.mean([(r.labels[1:] != -100).sum() for r in rows])
    shown = np.mean([(np.asarray(r.input_ids) == image_id).sum() for r in rows])
    pictures = np.mean([len(r.images) for r in rows])
    return RowSize(tokens.mean(), (tokens**2).mean(), float(labels), float(pictures), float(shown))


def take_turns(sides: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Return the least seconds of one pass of each side, by turns, for so long a side; first passes are not counted."""
    best = dict.fromkeys(sides, float("inf"))
    for work in sides.values():
        _timed(work)
    begin, rounds = time.perf_counter(), 0
    while rounds < 2 or time.perf_counter() - begin < seconds * len(sides):
        for name, work in sides.items():
            best[name] = min(best[name], _timed(work))
        rounds += 1
    return best


def _timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


# what a card's bf16 products reach by its data sheet, dense, in TFLOP/s
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}


def peak_of(asked: float | None) -> float | None:
    """Return the peak of the GPU at hand in TFLOP/s, None where it is not known."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return asked or next((peak for card, peak in PEAKS.items() if card in name), None)
