"""LLaVA-NeXT (LLaVA 1.6): a CLIP tower on a picture's tiles, MLP, LLaMA, Mistral or another decoder.

Axes: I pictures, N tiles of a batch, H the decoder's width.
"""

from typing import Any

import torch

from ...pool.vision import Size
from ...store.errors import InputError
from .of_hf.family import unlike
from .of_hf.processor import FolderProcessor, known
from .of_llava.anyres import IMAGE, AnyRes, AnyResFamily, tile_of

# of processor_config.json
PATCH, STRATEGY, EXTRA = "patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"
# the words of a chat template as LLaVA 1.6 with Mistral has it
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] + "
    "'\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}[INST] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %} [/INST]{% elif message['role'] == "
    "'assistant' %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% else %}"
    "{{ raise_exception('a turn is of system, user or assistant') }}{% endif %}{% endfor %}"
)


class NextPictures(AnyRes):
    """A picture's tokens: those of the whole, then of the tiles, and an end of each line."""

    def __init__(self, processor: FolderProcessor, image_mode: str) -> None:
        super().__init__(processor, image_mode, "LLaVA-NeXT")
        if not self.settings.get(PATCH):
            raise InputError(f"processor_config.json lacks {PATCH}, so image tokens cannot be counted.")
        self.side = tile_of(self.images) // int(self.settings[PATCH])
        self.whole = _whole(self.settings, self.side)

    def expanded(self, size: Size | None) -> str:
        """Return the image token as often as a picture has features."""
        assert size is not None
        rows, columns = self.lines(size, self.side)
        return IMAGE * (self.whole + rows * (columns + 1))


class LlavaNext(AnyResFamily):
    """`LlavaNextForConditionalGeneration`."""

    name = "llava_next"
    kinds = ("llava_next",)
    label = "LLaVA-NeXT (LlavaNextForConditionalGeneration)"
    hf = "LlavaNextForConditionalGeneration"

    def image_processor(self) -> Any:
        """Return LLaVA-NeXT's."""
        from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

        return LlavaNextImageProcessorPil

    def counts(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name patches, strategies and numbers of tokens of a tile that differ."""
        vision, settings = config.vision_config, processor.settings
        patch, strategy = (vision.patch_size, settings.get(PATCH)), (getattr(config, STRATEGY), settings.get(STRATEGY))
        faults = unlike({PATCH: patch, STRATEGY: strategy}, "processor_config.json")
        if faults:
            return faults
        side = vision.image_size // vision.patch_size
        if (count := _whole(settings, side)) != side**2:
            said = f"{EXTRA} {settings.get(EXTRA, 0)} and {STRATEGY} {settings.get(STRATEGY)!r}"
            faults = [f"config.json makes {side**2} tokens of a tile, processor_config.json has {said}, so {count}"]
        return faults

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of CLIP and of Mistral; tiles of 32 pixels on grids of two and four, 16 tokens each."""
        from transformers import LlavaNextConfig

        from .of_hf.tiny import drawn, words, write

        tokenizer = words(texts, ("<s>", "</s>", IMAGE), "</s>")
        tokenizer.bos_token = "<s>"
        grids = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
        side = {"height": 32, "width": 32}
        images = self.image_processor()(size={"shortest_edge": 32}, crop_size=side, image_grid_pinpoints=grids)
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        vision |= {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8}
        text = {"model_type": "mistral", "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
        text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "vocab_size": len(tokenizer)}
        text |= {"max_position_embeddings": 512, "sliding_window": None, "bos_token_id": tokenizer.bos_token_id}
        text |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = LlavaNextConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=known(tokenizer, IMAGE),
            image_grid_pinpoints=grids,
            image_seq_length=16,
        )
        settings = {PATCH: 8, STRATEGY: "default", EXTRA: 1, "processor_class": "LlavaNextProcessor"}
        processor = FolderProcessor(self.name, tokenizer, images, settings)
        return write(out, drawn(self.class_of(config)), config, processor, TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> NextPictures:
        """Return what cuts pictures into tiles."""
        return NextPictures(processor, image_mode)

    def pack(self, base: Any, shown: list[torch.Tensor], sizes_I2: torch.Tensor) -> list[torch.Tensor]:
        """Return the tokens of each picture."""
        strategy = base.config.vision_feature_select_strategy
        return base.pack_image_features(shown, sizes_I2, strategy, image_newline=base.image_newline)[0]


def _whole(settings: dict[str, Any], side: int) -> int:
    """Return how many tokens the processor counts for the whole of a picture."""
    return side**2 + int(settings.get(EXTRA) or 0) - (settings.get(STRATEGY) == "default")


FAMILY = LlavaNext
