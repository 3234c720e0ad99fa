"""The law of families' own names: one of the house's laws of a file (`rules.py`)."""

import ast
import re
from typing import Any

# what LLaVA and its like call modules, settings and inputs; and of these the words that are parts of any model in a config
FAMILY_NAMES = {"vision_tower", "multi_modal_projector", "mm_projector", "language_model", "lm_head", "pixel_values"}
FAMILY_NAMES |= {"image_token", "image_token_id", "image_token_index", "image_grid_thw", "mm_token_type_ids"}
FAMILY_NAMES |= {"LlavaForConditionalGeneration", "LlavaProcessor", "LlavaConfig"}
PART_NAMES = {"vision_tower", "language_model", "lm_head"}
# files that may name them all the same, and why
FAMILY_NAMED = {"pool/media.py": "a column of a user's table that may be called so"}


def family_names(source: Any) -> list[str]:
    """What one family of models calls its modules, settings and inputs, outside of `models/family/`."""
    if source.path.startswith("models/family/") or source.path in FAMILY_NAMED:
        return []
    docs = {id(n.value) for n in ast.walk(source.tree) if isinstance(n, ast.Expr)}
    problems = []
    for node in ast.walk(source.tree):
        named = getattr(node, "attr", None) or getattr(node, "id", None) or getattr(node, "arg", None)
        if isinstance(named, str) and named in FAMILY_NAMES:
            problems.append(f"{source.path}:{node.lineno}: {named} is a family's own name; ask `models/registry.py`")
        if isinstance(node, ast.alias) and FAMILY_NAMES & set(node.name.split(".")):
            problems.append(f"{source.path}:{node.lineno}: {node.name} is a family's own; ask `models/registry.py`")
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in docs and text not in PART_NAMES and _words(text) & FAMILY_NAMES:
            problems.append(
                f"{source.path}:{node.lineno}: {text!r} holds a family's own name; ask `models/registry.py`"
            )
    return problems


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
