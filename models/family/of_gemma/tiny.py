"""The tiny Gemma 3: random weights that do something."""

from typing import Any

import torch

from ..of_hf.processor import FolderProcessor, known
from ..of_hf.tiny import words, write

MARKS = (
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<image_soft_token>",
    "<end_of_image>",
)


def build(family: Any, out: str, texts: list[str], template: str) -> str:
    """Write it to the folder `out`; returns it."""
    from transformers import Gemma3Config

    named = dict(zip(("boi_token", "image_token", "eoi_token"), MARKS[4:], strict=True))
    tokenizer = words(texts, MARKS, "<end_of_turn>", named)
    tokenizer.bos_token = "<bos>"
    images = family.image_processor()(size={"height": 32, "width": 32})
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 32, "patch_size": 8, "vision_use_head": False, "model_type": "siglip_vision_model"}
    text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    text |= {"num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16, "vocab_size": len(tokenizer)}
    text |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 16}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text |= ends | {"pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 512}
    start, image, end = (known(tokenizer, token) for token in MARKS[4:])
    marks = {"boi_token_index": start, "image_token_index": image, "eoi_token_index": end}
    config = Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=4, **marks, **ends)

    def drawn(config: Any) -> Any:
        """Hugging Face begins with pictures that say nothing (zeros) and norms that do not scale."""
        model = family.class_of(config)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("mm_input_projection_weight") or "norm" in name.rsplit(".", 2)[-2]:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return model

    settings = {"image_seq_length": 4, "processor_class": "Gemma3Processor"}
    processor = FolderProcessor(family.name, tokenizer, images, settings)
    return write(out, drawn, config, processor, template)
