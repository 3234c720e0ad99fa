"""Types of models that were looked at and do not work here, each with what it lacks: never used approximately.

Whoever adds a family takes its type off. Any other type that transformers knows is refused too: nobody looked at it.
"""

_CROSS = (
    "its pictures enter by layers of cross-attention and have no tokens in the text, so image masks, trajectories and "
    "embeddings have nothing to stand on"
)
_LINEAR = (
    "some of its decoder's layers attend linearly, by a state or by convolution: they have no attention matrix, so "
    "trajectories would leave them out"
)
_PER_LAYER = "its decoder's layers take inputs of their own for each token, beside the embeddings that features replace"
_PREFIX = (
    "its whole prompt attends both ways and its answer alone is causal, so a row of several turns has no exact form"
)
_EXPERTS = "its experts' weights are bare tensors, no Linears: gradients of each sample and LoRA would leave them out"
_AXES = "its tokens have positions of several axes by rules of its own, which no file of models/family makes"
_SIZES = "its pictures are of any size, padded or packed over a batch by sizes of their own, which no reader here makes"
_DEEPER = "its pictures' features enter deeper layers of the decoder too, by rules that no file of models/family holds"
_VIDEO = "it is made for video or sound, and pictures alone are read here"
_TORCHVISION = "its image processor needs torchvision, which is no part of vinnow"
_APART = "its decoder reads pictures by an encoder or before the text, not as tokens in what it decodes"
_CODES = "its pictures become words of a codebook, so that neither tower nor connector has a gradient"
_REMOTE = "its classes are code in its own folder, none of transformers', and code from folders is not run"

_LACKING: dict[str, tuple[str, ...]] = {
    _CROSS: ("mllama", "idefics", "evolla"),
    _LINEAR: ("qwen3_5", "qwen3_5_moe", "qwen4_exp", "glm5_next", "inkling2", "nemotron_h_omni", "lfm2_vl", "lfm3_vl"),
    _PER_LAYER: ("gemma3n", "gemma4"),
    _PREFIX: ("paligemma",),
    _EXPERTS: ("qwen3_vl_moe", "glm4v_moe", "ernie4_5_vl_moe", "aria", "llama4", "deepseek_ocr2"),
    _AXES: ("glm4v", "glm46v", "glm_ocr", "paddleocr_vl", "hunyuan_vl"),
    _SIZES: ("mistral3", "lighton_ocr", "idefics2", "minicpmv4_6", "minicpmv4_7"),
    _DEEPER: ("granite4_vision", "granite_docling", "cohere_compass"),
    _VIDEO: (
        "llava_next_video",
        "video_llava",
        "video_llama_3",
        "instructblipvideo",
        "qwen2_5_omni_thinker",
        "qwen2_5_omni",
        "qwen3_omni_moe_thinker",
        "qwen3_omni_moe",
    ),
    _TORCHVISION: ("cohere2_vision", "molmo2", "kimi_k25", "perception_lm"),
    _APART: ("florence2", "pix2struct", "udop", "t5gemma2", "vision-encoder-decoder", "blip", "git"),
    _CODES: ("chameleon", "emu3"),
    _REMOTE: ("minicpmv", "minicpmo", "internvl_chat", "phi3_v", "molmo", "ovis", "kimi_vl", "deepseek_vl_v2"),
}
MISSING = {kind: why for why, kinds in _LACKING.items() for kind in kinds}


def lacking(kind: object, known: list[str]) -> str | None:
    """Return in words what a `model_type` lacks and which are `known` to work; None where nobody looked at it."""
    if not isinstance(kind, str) or kind not in MISSING:
        return None
    return f"models of type {kind!r} cannot be used exactly: {MISSING[kind]}. Types that work: {', '.join(known)}"


def aside(kind: object) -> str:
    """Return what is to be said of a type that nobody looked at: whether transformers has it at all."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    there = isinstance(kind, str) and kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return " (transformers has it, and nobody has held it to transformers' own forward here)" if there else ""
