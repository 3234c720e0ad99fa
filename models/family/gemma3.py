"""Gemma 3: squares of pixels, averaged to a fixed number of tokens, which attend both ways inside their picture.

A decoder of sliding and full layers, each kind with rotary bases of its own. Pictures are taken whole: no pan and scan.
Axes: I pictures, R image tokens of a batch, T tokens, H the decoder's width.
"""

from typing import Any

import torch
from torch import nn

from ...store.errors import InputError
from ..protocol import Batch, Components, base_of
from .of_gemma.masks import both_ways
from .of_hf.family import HFFamily, switched_off, unlike
from .of_hf.processor import FolderProcessor, known
from .of_hf.reader import PIXELS, HFReader
from .of_llava import names

START, IMAGE, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
# a batch's image tokens as Hugging Face's own code is told of them
KINDS = "token_type_ids"
# how many image tokens a picture has, in processor_config.json
COUNT = "image_seq_length"
# the words of the model's own chat template, for texts and pictures alone
TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}"
    "{% set said = messages[0]['content'] %}{% set prefix = (said if said is string else said[0]['text']) + '\n\n' %}"
    "{% else %}{% set turns = messages %}{% set prefix = '' %}{% endif %}"
    "{% for turn in turns %}{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "<start_of_turn>{{ 'model' if turn['role'] == 'assistant' else turn['role'] }}\n{{ prefix if loop.first else '' }}"
    "{% if turn['content'] is string %}{{ turn['content'] | trim }}{% else %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class Squares(HFReader):
    """Makes each picture one square; all become one number of tokens. Line breaks stand around them, and melt with text."""

    image, mark, around = IMAGE, START, ("\n\n", "\n\n")

    def __init__(self, processor: FolderProcessor, image_mode: str) -> None:
        super().__init__(processor, image_mode, "Gemma 3")
        if getattr(self.images, "do_pan_and_scan", False):
            raise InputError(
                "the image processor has do_pan_and_scan: true. They are taken whole here, as by Hugging Face's processor: "
                "it makes crops where a call asks for them, whatever this field says. Set it to false."
            )
        self.fixed = int(self.settings.get(COUNT, 256))

    def expanded(self, size: Any) -> str:
        """Return a picture's tokens between their marks."""
        return f"{START}{IMAGE * int(self.fixed or 0)}{END}"


class Gemma3(HFFamily):
    """`Gemma3ForConditionalGeneration`."""

    name = "gemma3"
    kinds = ("gemma3",)
    label = "Gemma 3 (Gemma3ForConditionalGeneration)"
    hf = "Gemma3ForConditionalGeneration"
    components = Components(
        vision=("model.vision_tower",),
        connector=("model.multi_modal_projector",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )
    # transformers 4.50 named its tensors as it named LLaVA's
    layouts = names.LAYOUTS[1:]
    old = names.OLD

    def class_of(self, config: Any) -> Any:
        """Return Hugging Face's class, whose connector's weight gives its gradients."""
        from .of_gemma.model import Gemma3ForConditionalGeneration

        return Gemma3ForConditionalGeneration

    def image_processor(self) -> Any:
        """Return Gemma 3's."""
        from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

        return Gemma3ImageProcessorPil

    def check_config(self, config: Any) -> None:
        """Refuse a decoder that is not causal, layers of another kind, and tokens that are no square of patches."""
        text, vision = config.get_text_config(), config.vision_config
        if getattr(text, "use_bidirectional_attention", False):
            raise InputError("text_config.use_bidirectional_attention: this Gemma 3 embeds texts; it cannot answer.")
        other = sorted(set(text.layer_types) - {"full_attention", "sliding_attention"})
        if other:
            raise InputError(f"text_config.layer_types has {other}, which no Gemma 3 has.")
        side, patches = int(config.mm_tokens_per_image**0.5), vision.image_size // vision.patch_size
        if side**2 != config.mm_tokens_per_image or side == 0 or patches // (patches // side or 1) != side:
            raise InputError(
                f"mm_tokens_per_image is {config.mm_tokens_per_image}: {patches} × {patches} patches cannot be averaged to "
                "that many."
            )

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name marks, sizes and numbers of tokens that differ."""
        images, side = processor.image_processor, config.vision_config.image_size
        size = {
            "image_size": (side, dict(images.size).get("height")),
            "its width": (side, dict(images.size).get("width")),
        }
        faults = unlike(size, "the image processor")
        count = processor.settings.get(COUNT, 256)
        faults += unlike({"mm_tokens_per_image": (config.mm_tokens_per_image, count)}, f"the processor's {COUNT}")
        marks = {"image_token_id": IMAGE, "boi_token_index": START, "eoi_token_index": END}
        for name, token in marks.items():
            here = known(processor.tokenizer, token)
            faults += unlike({name: (getattr(config, name), here)}, f"the tokenizer's of {token} is")
        return faults + switched_off(images, "do_resize", "do_rescale", "do_normalize")

    def modern(self, name: str, model: nn.Module) -> str:
        """Return the name in memory of a tensor that transformers 4.50 named."""
        return names.modern(name, model)

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two blocks of SigLIP and three of Gemma: sliding, full, sliding; windows of 16 tokens."""
        from .of_gemma.tiny import build

        return build(self, out, texts, TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> Squares:
        """Return what makes squares of pictures."""
        return Squares(processor, image_mode)

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the tower's patches, [I, patches, D]."""
        return base_of(model).model.vision_tower(pixel_values=media[PIXELS]).last_hidden_state

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return averaged and projected features, picture by picture."""
        return self.connector(model)(seen).flatten(0, 1)

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one square of zeros."""
        side = config.vision_config.image_size
        return {PIXELS: torch.zeros(1, 3, side, side)}

    def arguments(self, model: Any, batch: Batch, seen: Any) -> dict[str, Any]:
        """Return the masks of both kinds of layers; where no row has a picture, the decoder's own causal ones are right."""
        if not batch["image_at"][0].shape[0]:
            return {}
        base = base_of(model)
        # the first one that comes, asked of no module: under ZeRO-3 a rank with pictures would gather it alone
        image_BT, first = self.image_mask(base.config, batch["input_ids"]), next(base.parameters())
        return {"attention_mask": both_ways(image_BT, self.decoder(model).config, first.dtype)}

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes, which makes its masks by the kinds of tokens."""
        kinds_BT = self.image_mask(base_of(model).config, batch["input_ids"]).long()
        return super().generating(model, batch) | ({KINDS: kinds_BT} if batch["media"] else {})


FAMILY = Gemma3
