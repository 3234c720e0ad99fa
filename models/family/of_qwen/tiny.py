"""Tiny models of Qwen's families: one tokenizer and image processor, and the marks that their own templates write."""

from typing import Any

from ..of_hf.family import HFFamily
from ..of_hf.processor import FolderProcessor, known
from ..of_hf.tiny import words, write
from .patches import END, IMAGE, START, VIDEO

# the words of the models' own chat templates, for texts and media alone
_TURNS = (
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATE = "{% for message in messages %}" + _TURNS
# Qwen2-VL and Qwen2.5-VL begin with a system prompt where none is there
WITH_SYSTEM = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n{% endif %}" + _TURNS
)
TEXT = {"hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}


def write_tiny(
    family: HFFamily, out: str, texts: list[str], template: str, sections: tuple[dict[str, Any], dict[str, Any]]
) -> str:
    """Write a folder of patches of 8 pixels; `sections`: the config's of vision and text. Returns the folder."""
    tokenizer = words(texts, (START, IMAGE, VIDEO, END, "<|im_start|>", "<|im_end|>"), "<|im_end|>")
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    images = family.image_processor()(patch_size=8, size=size)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    vision, text = sections
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 512} | text | ends
    marks = {"image": IMAGE, "video": VIDEO, "vision_start": START, "vision_end": END}
    ids = {f"{name}_token_id": known(tokenizer, token) for name, token in marks.items()}
    model_class = family.class_of(None)
    config = model_class.config_class(vision_config=vision | {"patch_size": 8}, text_config=text, **ids)
    return write(out, model_class, config, FolderProcessor(family.name, tokenizer, images), template)
