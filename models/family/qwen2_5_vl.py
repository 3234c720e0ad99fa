"""Qwen2.5-VL: pictures of any size as flat patches, two by two merged into tokens, and positions of three axes (M-RoPE).

The merger lies inside the tower and ends its pass, so both are one step here, and checkpoints share it only where both are
equal. Pictures alone: no video. Axes: I pictures, P patches of a picture or batch, T tokens.
"""

from typing import Any

import torch

from ...pool.vision import USUAL
from ..protocol import Batch, Components, base_of
from .of_hf.family import HFFamily, unlike
from .of_hf.processor import FolderProcessor, known
from .of_hf.reader import PIXELS
from .of_qwen import patches
from .of_qwen.patches import END, GRID, IMAGE, START, Patches
from .of_qwen.windows import group_windows

# a batch's image tokens as Hugging Face's own code is told of them
KINDS = "mm_token_type_ids"
# the words of the model's own chat template, for texts and pictures alone
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Qwen25VL(HFFamily):
    """`Qwen2_5_VLForConditionalGeneration`."""

    name = "qwen2_5_vl"
    kinds = ("qwen2_5_vl",)
    label = "Qwen2.5-VL (Qwen2_5_VLForConditionalGeneration)"
    hf = "Qwen2_5_VLForConditionalGeneration"
    components = Components(
        vision=("model.visual",),
        connector=("model.visual.merger",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )

    def image_processor(self) -> Any:
        """Return Qwen2-VL's."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        return Qwen2VLImageProcessorPil

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens and cuts of pictures that differ."""
        images, vision, here = processor.image_processor, config.vision_config, known(processor.tokenizer, IMAGE)
        names = {
            "patch_size": "patch_size",
            "temporal_patch_size": "temporal_patch_size",
            "spatial_merge_size": "merge_size",
        }
        cut = {ours: (getattr(vision, ours), getattr(images, theirs)) for ours, theirs in names.items()}
        faults = unlike(cut, "the image processor")
        if config.image_token_id != here:
            faults.append(
                f"config.json has image_token_id {config.image_token_id}, the tokenizer's of {IMAGE} is {here}"
            )
        return faults

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder, patches of 8 pixels."""
        from transformers import Qwen2_5_VLConfig

        from .of_hf.tiny import words, write

        tokenizer = words(texts, (START, IMAGE, END, "<|im_start|>", "<|im_end|>"), "<|im_end|>")
        size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        images = self.image_processor()(patch_size=8, size=size)
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 48}
        vision |= {"patch_size": 8, "window_size": 32, "fullatt_block_indexes": [1]}
        text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}}
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        start, image, end = (known(tokenizer, token) for token in (START, IMAGE, END))
        marks = {"image_token_id": image, "vision_start_token_id": start, "vision_end_token_id": end}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=text | ends, **marks, video_token_id=1)
        return write(out, self.class_of(config), config, FolderProcessor(self.name, tokenizer, images), TEMPLATE)

    def reader(self, processor: FolderProcessor, image_mode: str) -> Patches:
        """Return what cuts pictures into patches."""
        return Patches(processor, image_mode, "Qwen2.5-VL")

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the merged tokens, [R, H]: the merger ends the tower's own pass."""
        tower = base_of(model).model.visual
        group_windows(tower)
        return tower(media[PIXELS], grid_thw=media[GRID]).pooler_output

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return them as they are."""
        return seen

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return the patches of one merged token, all zero."""
        return patches.blank(config.vision_config)

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return pictures of `USUAL` pixels, cut to whole merged patches."""
        return patches.usual(config.vision_config, USUAL, count)

    def arguments(self, model: Any, batch: Batch, seen: Any) -> dict[str, Any]:
        """Return the positions of three axes, [3, B, T]; where no picture is, the decoder's own are the same."""
        if GRID not in batch["media"] or batch.get("blank"):
            return {}
        inner, ids_BT, mask_BT = base_of(model).model, batch["input_ids"], batch["attention_mask"]
        kinds_BT = self.image_mask(base_of(model).config, ids_BT).int()
        places_3BT, _ = inner.get_rope_index(ids_BT, kinds_BT, batch["media"][GRID], attention_mask=mask_BT)
        return {"position_ids": places_3BT}

    def generating(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Return what `generate` takes, which finds positions by the kinds of tokens."""
        kinds_BT = self.image_mask(base_of(model).config, batch["input_ids"]).int()
        return super().generating(model, batch) | ({KINDS: kinds_BT} if batch["media"] else {})


FAMILY = Qwen25VL
