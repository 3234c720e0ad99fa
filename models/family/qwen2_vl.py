"""Qwen2-VL: flat patches, a merger at the tower's end, positions of three axes; its tower attends inside whole pictures."""

from ..protocol import Components
from .of_qwen.family import QwenFamily


class Qwen2VL(QwenFamily):
    """`Qwen2VLForConditionalGeneration`."""

    name = "qwen2_vl"
    kinds = ("qwen2_vl",)
    label = "Qwen2-VL (Qwen2VLForConditionalGeneration)"
    hf = "Qwen2VLForConditionalGeneration"
    components = Components(
        vision=("model.visual",),
        connector=("model.visual.merger",),
        decoder=("model.language_model",),
        head=("lm_head",),
    )

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write two layers of tower and decoder."""
        from .of_qwen.tiny import WITH_SYSTEM, write_tiny

        vision = {"depth": 2, "embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2, "num_heads": 4}
        text = {"num_hidden_layers": 2}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 1e4}}
        return write_tiny(self, out, texts, WITH_SYSTEM, (vision, text))


FAMILY = Qwen2VL
