"""Types that need no file of their own: each entry is a family, held to Hugging Face's own forward by the contract suite.

A type fits if its pictures become squares of one size, its features take the place of tokens in the text and nothing else
enters the decoder, and its processor can be made without torchvision. What it is called stands here; what is done in
`of_hf/plain.py`. Types that were looked at and do not fit are refused by name: `models/missing.py`.
"""

from ..protocol import Components
from .of_hf.plain import Kind, family_of_kind

_LLAVA = Components(
    vision=("model.vision_tower",),
    connector=("model.multi_modal_projector",),
    decoder=("model.language_model",),
    head=("lm_head",),
)
_ALIGNED = Components(
    vision=("model.vision_model",),
    connector=("model.aligner",),
    decoder=("model.language_model",),
    head=("lm_head",),
)

KINDS = (
    Kind(
        "aya_vision",
        "Aya Vision",
        "AyaVisionForConditionalGeneration",
        processor="AyaVisionProcessor",
        images="GotOcr2ImageProcessorPil",
        mark="<image>",
        token="<|IMG_PATCH|>",
        components=_LLAVA,
        tokens=lambda c: (c.vision_config.image_size // c.vision_config.patch_size // c.downsample_factor) ** 2,
        squares=13,
        tiny={
            "text": {"model_type": "cohere2", "head_dim": 12, "sliding_window": 64},
            "config": {"downsample_factor": 2},
            "images": {"size": {"height": 32, "width": 32}, "min_patches": 1, "max_patches": 4},
            "processor": {"patch_size": 8, "img_size": 32, "downsample_factor": 2},
            "marks": {"<|START_OF_IMG|>": 0, "<|END_OF_IMG|>": 0},
        },
    ),
    Kind(
        "deepseek_vl",
        "DeepSeek-VL",
        "DeepseekVLForConditionalGeneration",
        processor="DeepseekVLProcessor",
        images="DeepseekVLImageProcessorPil",
        mark="<image_placeholder>",
        token="<image_placeholder>",
        components=_ALIGNED,
        tokens=lambda c: (c.vision_config.image_size // c.vision_config.patch_size) ** 2,
        fixed=True,
        tiny={
            "text": {"model_type": "llama", "tie_word_embeddings": False},
            "config": {"tie_word_embeddings": False},
            "images": {"size": {"height": 32, "width": 32}, "min_size": 4},
            "processor": {"num_image_tokens": 16},
            "named": {"image_token": "<image_placeholder>"},
        },
    ),
)

FAMILY = tuple(family_of_kind(entry) for entry in KINDS)
