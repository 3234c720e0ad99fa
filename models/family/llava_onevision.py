"""LLaVA-OneVision: a SigLIP tower on a picture's tiles, MLP, Qwen2; a picture that is not alone in its record is not cut.

Many tiles' features are averaged to fewer (`vision_aspect_ratio`). Pictures alone: no video.
Axes: I pictures, N tiles of a batch, H the decoder's width.
"""

import math
import re
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...pool.long_pad import is_long, pad_and_resize
from ...pool.vision import Size
from ...store.arrays import Array
from ...store.errors import InputError
from ..protocol import Batch
from .of_hf.family import unlike
from .of_hf.processor import FolderProcessor, known
from .of_hf.reader import PIXELS
from .of_llava.anyres import IMAGE, TILES, AnyRes, AnyResFamily, tile_of

# of processor_config.json
COUNT, STRATEGY, RATIO = "num_image_tokens", "vision_feature_select_strategy", "vision_aspect_ratio"
# how many pictures each row has, as Hugging Face's code is told
ROWS = "batch_num_images"
# the words of the model's own chat template, for texts and pictures alone
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{% if message['role'] == 'assistant' %}{% generation %}{{ '\n' + part['text'] }}"
    "{% endgeneration %}{% else %}{{ '\n' + part['text'] }}{% endif %}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class OneVisionPictures(AnyRes):
    """Cuts a picture that is `alone` in its record into tiles; one beside others is padded to a square, and that is all."""

    def __init__(self, processor: FolderProcessor, image_mode: str, alone: bool = True) -> None:
        super().__init__(processor, image_mode, "LLaVA-OneVision")
        if not self.settings.get(COUNT):
            raise InputError(f"processor_config.json lacks {COUNT}, so image tokens cannot be counted.")
        self.whole, self.most = _whole(self.settings), _most(self.settings.get(RATIO, "anyres_max_9"))
        self.side, self.alone = math.isqrt(int(self.settings[COUNT])), alone
        self._beside = OneVisionPictures(processor, image_mode, False) if alone else self

    def among(self, count: int) -> "OneVisionPictures":
        """Return what prepares a picture that is one of `count` of its record."""
        return self if count <= 1 else self._beside

    def expanded(self, size: Size | None) -> str:
        """Return the image token as often as a picture has features."""
        if not self.alone:
            return IMAGE * (self.whole + 1)
        assert size is not None
        rows, columns = self.lines(size, self.side)
        if (ratio := math.sqrt(rows * columns / (self.most * self.side**2))) > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
        return IMAGE * (self.whole + rows * (columns + 1))

    def cut(self, picture: Image.Image) -> dict[str, Array]:
        """Return the tiles, [1, tiles, 3, side, side]."""
        if self.alone:
            return super().cut(picture)
        side = tile_of(self.images)
        if is_long(picture.size) and int(self.images.resample) == Image.Resampling.BICUBIC:
            # a square of its longer side would be many times its memory
            red, green, blue = (int(value * 255) for value in self.images.image_mean)
            return {PIXELS: pad_and_resize(picture, side, (red, green, blue)).transpose(2, 0, 1)[None, None]}
        # a dot beside it, so that it is not alone
        row, plain = [[picture, Image.new("RGB", (1, 1))]], {"do_rescale": False, "do_normalize": False}
        return {PIXELS: np.asarray(self.images.preprocess(row, **plain, return_tensors="np")[PIXELS])[:1]}


class LlavaOneVision(AnyResFamily):
    """`LlavaOnevisionForConditionalGeneration`."""

    name = "llava_onevision"
    kinds = ("llava_onevision",)
    label = "LLaVA-OneVision (LlavaOnevisionForConditionalGeneration)"
    hf = "LlavaOnevisionForConditionalGeneration"

    def image_processor(self) -> Any:
        """Return LLaVA-OneVision's."""
        from transformers.models.llava_onevision import image_processing_pil_llava_onevision as images

        return images.LlavaOnevisionImageProcessorPil

    def check_config(self, config: Any) -> None:
        """Refuse grids that are not of whole tiles, and an aspect ratio that says no number of tiles."""
        super().check_config(config)
        _most(config.vision_aspect_ratio)

    def counts(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name strategies, aspect ratios and numbers of tokens of a tile that differ."""
        settings, side = processor.settings, config.vision_config.image_size // config.vision_config.patch_size
        fields = {RATIO: (getattr(config, RATIO), settings.get(RATIO, "anyres_max_9"))}
        # without a word the processor takes all
        fields |= {STRATEGY: (getattr(config, STRATEGY), settings.get(STRATEGY) or "full")}
        faults = unlike(fields, "processor_config.json")
        if not faults and (count := _whole(settings)) != side**2:
            faults = [f"config.json makes {side**2} tokens of a tile, processor_config.json with its {COUNT} {count}"]
        return faults

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of SigLIP and of Qwen2; a tile of 32 pixels becomes 16 tokens, all of them at most 32."""
        from transformers import LlavaOnevisionConfig

        from .of_hf.tiny import drawn, words, write

        tokenizer = words(texts, (IMAGE, "<video>", "<|im_start|>", "<|im_end|>"), "<|im_end|>")
        grids, side = (
            [[32 * rows, 32 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)],
            {"height": 32, "width": 32},
        )
        half = [0.5, 0.4, 0.6]
        images = self.image_processor()(size=side, image_grid_pinpoints=grids, image_mean=half, image_std=half)
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision |= {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8, "vision_use_head": False}
        text = {"model_type": "qwen2", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)}
        text |= {"max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
        config = LlavaOnevisionConfig(
            vision_config=vision,
            text_config=text | {"pad_token_id": tokenizer.pad_token_id},
            image_token_index=known(tokenizer, IMAGE),
            video_token_index=known(tokenizer, "<video>"),
            image_grid_pinpoints=grids,
            vision_aspect_ratio="anyres_max_2",
        )
        settings = {COUNT: 16, STRATEGY: "full", RATIO: "anyres_max_2", "processor_class": "LlavaOnevisionProcessor"}
        processor = FolderProcessor(self.name, tokenizer, images, settings)
        return write(out, drawn(self.class_of(config)), config, processor, TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> OneVisionPictures:
        """Return what cuts pictures into tiles."""
        return OneVisionPictures(processor, image_mode)

    def pack(self, base: Any, shown: list[torch.Tensor], sizes_I2: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens of each picture."""
        ratio = base.config.vision_aspect_ratio
        return base.pack_image_features(shown, sizes_I2, image_newline=base.image_newline, vision_aspect_ratio=ratio)[0]

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes, which cuts those pictures alone that are alone in their row."""
        media = batch["media"]
        return super().generating(model, batch) | ({ROWS: _rows(media[TILES].tolist())} if media else {})


class _Several(int):
    """One picture of a row of several, of which a prompt shows it alone: to Hugging Face's code it must not equal 1."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _rows(tiles_I: list[int]) -> list[int]:
    """Return numbers of pictures a row in which just those of several tiles are alone."""
    rows: list[int] = []
    for alone, run in groupby(tiles_I, lambda tiles: tiles > 1):
        count = len(list(run))
        rows += [1] * count if alone else [count if count > 1 else _Several(1)]
    return rows


def _whole(settings: dict[str, Any]) -> int:
    """Return how many tokens the processor counts for the whole of a picture."""
    return int(settings.get(COUNT) or 0) - (settings.get(STRATEGY) == "default")


def _most(ratio: str) -> int:
    """Return of how many tiles a picture keeps all features."""
    if not (matched := re.fullmatch(r"anyres_max_(\d+)", ratio)) or not int(matched[1]):
        raise InputError(f"{RATIO} is {ratio!r}; it is anyres_max_ and a number of tiles.")
    return int(matched[1])


FAMILY = LlavaOneVision
