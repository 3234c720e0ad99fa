"""LLaVA-1.5 and its offspring: any tower, a connector, any decoder, in Hugging Face's class or one made of it.

One picture is one square of pixels and one number of tokens. What its models are put together from, and other programs'
names and files of it, stand in `of_llava/`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..protocol import Components, Family, base_of
from .of_llava import names
from .of_llava.connectors import connector_of
from .of_llava.fit import check_fit
from .of_llava.llms import fitting_template, lora_names
from .of_llava.pictures import PIXELS, SquarePictures
from .of_llava.seeing import chosen_states


class Llava(Family):
    """`LlavaForConditionalGeneration`."""

    name = "llava"
    kinds = ("llava",)
    label = "LLaVA (LlavaForConditionalGeneration)"
    processors = ("LlavaProcessor",)
    components = Components(
        vision=("model.vision_tower",),
        connector=("model.multi_modal_projector",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )
    layouts = names.LAYOUTS
    old = names.OLD
    counted = True
    # what published configs of LLaVA-1.5 leave out
    unnamed = "v1"

    def class_of(self, config: Any) -> Any:
        """Return Hugging Face's class, or the one that holds another connector or head."""
        from .of_llava.model import class_of

        return class_of(config)

    def load_processor(self, folder: Path) -> Any:
        """Return LLaVA's processor with the PIL image processor (the default class needs torchvision)."""
        from .of_llava.processor import load_processor

        return load_processor(folder)

    def check_config(self, config: Any) -> None:
        """Refuse a connector that is not known."""
        connector_of(config)

    def check_fit(self, config: Any, processor: Any, path: str) -> None:
        """See `Family.check_fit`: image and pad token, pictures, patches, select strategy, number of tokens, vocabulary."""
        check_fit(config, processor, path)

    def modern(self, name: str, model: nn.Module) -> str:
        """Return the name in memory of a tensor that LLaVA's code or transformers 4 named."""
        return names.modern(name, model)

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write the tiny model."""
        from ..specs import TinyModelConfig
        from .of_llava.tiny import build_tiny_model

        return build_tiny_model(out, texts, TinyModelConfig())

    def template(self, config: Any, tokenizer: Any) -> str:
        """Return the decoder's first whose special tokens the tokenizer knows."""
        return fitting_template(config, tokenizer)

    def reader(self, processor: Any, image_mode: str) -> SquarePictures:
        """Return what makes squares of pictures."""
        return SquarePictures(processor, image_mode)

    def lora_names(self, model: Any) -> list[str]:
        """Return those that the decoder's entry names, in its order."""
        return lora_names(self.decoder(model))

    def image_id(self, config: Any) -> int:
        """Return `image_token_id`."""
        return config.image_token_id

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return [I, tokens, D]: the configured layers of the vision tower, side by side."""
        base = base_of(model)
        return chosen_states(base.model.vision_tower, media[PIXELS], base.config)

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the projected features, picture by picture."""
        return self.connector(model)(seen).flatten(0, 1)

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one square of zeros."""
        side = config.vision_config.image_size
        return {PIXELS: torch.zeros(1, 3, side, side)}


FAMILY = Llava
