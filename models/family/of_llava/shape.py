"""The sizes of a LLaVA by its config: CLIP's tower, a projector of Linears, a LLaMA-like decoder."""

from typing import Any

from ...shape import Places, Shape, UnknownShapeError
from .connectors import connector_of

DECODERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma")
TOWERS = ("clip_vision_model",)
# LLaMA-like decoders'; a regex, not "all-linear": that would reach vision tower and projector in Hugging Face's class
LORA_TARGETS = r".*language_model\.layers\..*\.(q|k|v|o|gate|up|down)_proj"
PLACES = Places(
    vision="model.vision_tower.encoder.layers.",
    projector="model.multi_modal_projector.linear_",
    decoder="model.language_model.layers.",
    head="lm_head",
    targets=LORA_TARGETS,
)


def shape_of(config: Any) -> Shape:
    """Return the shape that a LLaVA's config describes.

    Raises:
        UnknownShapeError: its tower or decoder is none of `TOWERS` and `DECODERS`, or its connector no stack of Linears.
    """
    text, vision = getattr(config, "text_config", None), getattr(config, "vision_config", None)
    kinds = (config.model_type, getattr(vision, "model_type", None), getattr(text, "model_type", None))
    if kinds[0] != "llava" or kinds[1] not in TOWERS or kinds[2] not in DECODERS:
        raise UnknownShapeError(f"no formulas for {kinds}; there are for llava with {TOWERS} and {DECODERS}.")
    assert text is not None
    assert vision is not None
    projector = connector_of(config)
    stacked = projector.linears()
    if stacked is None:
        raise UnknownShapeError(
            f"no formulas for the connector {projector.kind!r}; there are for linear and mlp2x_gelu."
        )
    patches = (vision.image_size // vision.patch_size) ** 2
    taken = config.vision_feature_layer
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Shape(
        vision_layers=vision.num_hidden_layers,
        vision_width=vision.hidden_size,
        vision_ffn=vision.intermediate_size,
        vision_tokens=patches + 1,
        patch_inputs=3 * vision.patch_size**2,
        projector_inputs=vision.hidden_size * (1 if isinstance(taken, int) else len(taken)),
        projector_bias=config.multimodal_projector_bias or not projector.plain,
        image_tokens=patches + (config.vision_feature_select_strategy == "full"),
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        query_width=head * text.num_attention_heads,
        kv_width=head * text.num_key_value_heads,
        ffn=text.intermediate_size,
        vocab=text.vocab_size,
        places=PLACES,
        qkv_bias=text.model_type == "qwen2" or bool(getattr(text, "attention_bias", False)),
        projector_layers=stacked,
        head_norm=head if text.model_type == "qwen3" else 0,
        tied=bool(getattr(config, "tie_word_embeddings", False) or getattr(text, "tie_word_embeddings", False)),
    )
