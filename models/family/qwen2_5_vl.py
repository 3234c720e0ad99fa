"""Qwen2.5-VL: pictures of any size as flat patches, two by two merged into tokens, and positions of three axes (M-RoPE).

The merger lies inside the tower and ends its pass. Its tower attends inside windows of patches, in some blocks inside whole
pictures.
"""

from ..protocol import Components
from .of_qwen.family import QwenFamily


class Qwen25VL(QwenFamily):
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

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder."""
        from .of_qwen.tiny import WITH_SYSTEM, write_tiny

        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 48}
        vision |= {"window_size": 32, "fullatt_block_indexes": [1]}
        text = {"num_hidden_layers": 2}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}}
        return write_tiny(self, out, texts, WITH_SYSTEM, (vision, text))


FAMILY = Qwen25VL
