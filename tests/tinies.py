"""Every family's tiny model: one of each a session, records of all awkward kinds, and float64 that stays float64."""

import copy
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from PIL import Image
from torch.overrides import TorchFunctionMode
from vinnow.models import registry
from vinnow.models.encoding import default_template, make_encoder
from vinnow.models.load import Loaded, load
from vinnow.pool.collate import collate
from vinnow.pool.ingest import IngestConfig, ingest
from vinnow.pool.records import Record

NAMES = sorted(registry.families())
each_family = pytest.mark.parametrize("name", NAMES)
SIZES = {"a": (64, 64), "b": (90, 40), "c": (40, 120), "d": (31, 30)}
# (turns, pictures): one picture and a history, none, two in one turn, a short one, none again, two turns with one each
TALKS = [
    ([("<image>\nwhat is it?", "a red square"), ("and now?", "blue it is"), ("sure?", "yes")], "a"),
    ([("no picture here: what color is blood?", "red, as a rule")], ""),
    ([("<image> or <image>?", "the first one")], "bc"),
    ([("<image>\nred?", "no")], "c"),
    ([("what color is the sky, and why?", "blue")], ""),
    ([("<image>\nhere?", "no"), ("<image>\nand here, or behind it?", "there, yes")], "da"),
]
TEXT = 1


def _said(turns):
    return [{"from": who, "value": text} for pair in turns for who, text in zip(("human", "gpt"), pair, strict=True)]


RECORDS = [
    Record(i + 1, "s", "t", tuple(f"{p}.png" for p in pictures), _said(turns))
    for i, (turns, pictures) in enumerate(TALKS)
]


class Wide(TorchFunctionMode):
    """Values in float64 stay so where a model's own code rounds to float32 inside: norms, softmax, logits of a loss."""

    ROUNDING = (torch.Tensor.to, torch.Tensor.float, torch.Tensor.type)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, torch.Tensor) and first.dtype == torch.float64:
            if func in self.ROUNDING and (func is torch.Tensor.float or _is_narrow((*args[1:], *kwargs.values()))):
                return first
            if kwargs.get("dtype") == torch.float32 and "softmax" in getattr(func, "__name__", ""):
                kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


def _is_narrow(values):
    return any(v is torch.float32 or (isinstance(v, torch.Tensor) and v.dtype == torch.float32) for v in values)


@dataclass
class Tiny:
    """A family's tiny model on disk; `root`: where the pictures lie."""

    name: str
    path: str
    root: str

    @property
    def family(self):
        return registry.families()[self.name]

    @cached_property
    def loaded(self) -> Loaded:
        """The model in float64, which no test changes."""
        return load(self.path, "float64")

    @property
    def model(self):
        return self.loaded.model

    def copy(self, dtype="float32"):
        """A copy of the model to change; in float32 what `load` gives."""
        return copy.deepcopy(self.model if dtype == "float64" else self._narrow)

    @cached_property
    def _narrow(self):
        return load(self.path).model

    @cached_property
    def template(self) -> str:
        return default_template(self.path)

    @cached_property
    def encoder(self):
        return make_encoder(self.loaded.processor, self.template, 400)

    @property
    def pad(self) -> int:
        return self.loaded.processor.tokenizer.pad_token_id

    def rows(self, records=RECORDS, prompt=False):
        sizes = [self.encoder.sizes(self.root, r) for r in records]
        encode = self.encoder.prompt if prompt else self.encoder.encode
        encoded = [encode(r, sizes=s) for r, s in zip(records, sizes, strict=True)]
        return [
            row.showing([self.encoder.load(self.root, i, among=len(one.images)) for i in row.images])
            for row, one in zip(encoded, records, strict=True)
        ]

    def batch(self, records=RECORDS):
        return self.encoder.finish(collate(self.rows(records), self.pad))

    def theirs(self, record, model=None):
        """What Hugging Face's own forward is given of one record, labels included."""
        model = model or self.model
        batch = self.batch([record])
        batch["media"] = {n: v.to(model.dtype) if v.is_floating_point() else v for n, v in batch["media"].items()}
        return self.family.generating(model, batch) | {"labels": batch["labels"]}


def draw_noise(folder) -> str:
    """Write pictures of noise."""
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return str(folder)


def make_mixed(folder, root) -> str:
    """Make a POOL of the same records, by the real ingest."""
    rows = [
        {"id": f"r{r.sample_id}", "conversations": r.conversations, "task": "pictures" if r.images else "text"}
        | ({"image": list(r.images)} if r.images else {})
        for r in RECORDS
    ]
    (folder / "records.json").write_text(json.dumps(rows))
    ingest(IngestConfig(source=str(folder / "records.json"), image_root=root), str(folder / "pool"))
    return str(folder / "pool")


def make_tiny(name, folder, root) -> Tiny:
    """Make a family's tiny model."""
    texts = [turn["value"] for r in RECORDS for turn in r.conversations] * 20
    return Tiny(name, registry.families()[name].tiny(str(folder / "model"), texts), root)
