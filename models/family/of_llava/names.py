"""What LLaVA's own code and transformers 4 call the tensors and modules of a LLaVA (spec: LLaVA §6, §9)."""

import re
from typing import Any

from torch import nn

from ...protocol import Layout

_LLAVA = re.compile(r"^model\.(layers|norm|embed_tokens)\b")
_LLAVA_OTHERS = re.compile(r"^model\.(mm_projector\b|vision_tower\.vision_tower\.)")
_OLD = re.compile(r"^(language_model\.(model|lm_head)|multi_modal_projector|vision_tower)\b")
# other classes' and versions' names of the same parameters: LLaVA's own, and transformers 4's
OLD = {
    r"^(model\.)*mm_projector\.0\.": "multi_modal_projector.linear_1.",
    r"^(model\.)*mm_projector\.2\.": "multi_modal_projector.linear_2.",
    r"^(model\.)*(layers|norm|embed_tokens)\.": r"language_model.\2.",
    r"language_model\.model\.": "language_model.",
    r"language_model\.lm_head\.": "lm_head.",
}


def modern(name: str, model: nn.Module) -> str:
    """Return today's name of a tensor that LLaVA's code or transformers 4 named; any other name stays as it is."""
    body = _LLAVA.sub(r"model.language_model.\1", name)
    body = re.sub(r"^language_model\.model\.", "model.language_model.", body)
    body = re.sub(r"^language_model\.lm_head\b", "lm_head", body)
    body = re.sub(r"^(multi_modal_projector|vision_tower)\b", r"model.\1", body)
    body = re.sub(r"^model\.vision_tower\.vision_tower\.", "model.vision_tower.", body)
    # a GELU stands between two Linears, so theirs are the even numbers; a single one has none
    hit = re.match(r"^model\.mm_projector\.(?:(\d*[02468])\.)?(?!\d)", body)
    if hit:
        body = f"model.multi_modal_projector.linear_{int(hit[1] or 0) // 2 + 1}.{body[hit.end() :]}"
    if body.startswith("model.vision_tower.vision_model."):
        tower: Any = getattr(getattr(model, "model", None), "vision_tower", None)
        if not hasattr(tower, "vision_model"):
            body = body.replace("vision_tower.vision_model.", "vision_tower.", 1)
    return body


def _bare(name: str) -> str | None:
    """Return a module's name in a bare language model, where LLaVA puts its LoRA; None outside."""
    if name == "lm_head":
        return name
    return f"model.{name.removeprefix('model.language_model.')}" if name.startswith("model.language_model.") else None


def _old(name: str) -> str | None:
    """Return a module's name in transformers 4."""
    if name == "lm_head":
        return "language_model.lm_head"
    name = re.sub(r"^model\.language_model\b", "language_model.model", name)
    name = re.sub(r"^model\.vision_tower\.(?!vision_model)", "vision_tower.vision_model.", name)
    return name.removeprefix("model.")


# LLaVA puts its LoRA onto a bare language model; the projector was trained beside it
LAYOUTS = (
    Layout(lambda name: bool(_LLAVA.match(name) or _LLAVA_OTHERS.match(name)), _bare, beside=True),
    Layout(lambda name: bool(_OLD.match(name)), _old),
)
