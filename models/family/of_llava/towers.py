"""Vision towers by Hugging Face model type: class token, layer read, colours. A new tower is one entry.

A tower is what `AutoModel` makes of its vision config; from a picture of H × W pixels it gives (H / patch) × (W / patch)
patch tokens, behind its class token where it has one. SigLIP 2's models of one resolution are of SigLIP's type.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ....store.errors import InputError

RGB = tuple[float, float, float]
_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Tower:
    """One kind of tower.

    `extra`: tokens before the patches, the class token; it is dropped (strategy "default"), and where there is none
    all is kept ("full"). `layer`: the hidden state that is read by default. `colours`: mean and deviation, where its folder
    does not say. `flexible`: it takes other sizes than its config's, by interpolating its position embeddings.
    """

    name: str
    kind: str
    extra: int
    layer: int
    colours: tuple[RGB, RGB]
    flexible: bool = False

    @property
    def strategy(self) -> Literal["default", "full"]:
        """`vision_feature_select_strategy`."""
        return "default" if self.extra else "full"


_ALL = (
    Tower("clip", "clip_vision_model", 1, -2, _OPENAI),
    Tower("siglip", "siglip_vision_model", 0, -2, _HALF),
    Tower("dinov2", "dinov2", 1, -2, _IMAGENET, flexible=True),
)
TOWERS = {tower.name: tower for tower in _ALL}


def tower_of(vision_config: Any) -> Tower:
    """Return the entry of a vision config.

    Raises:
        InputError: there is none.
    """
    towers = [tower for tower in _ALL if tower.kind == vision_config.model_type]
    if not towers:
        raise InputError(
            f"no vision tower of type {vision_config.model_type!r}: there are {[t.kind for t in _ALL]}; a new one is one "
            "entry in models/family/of_llava/towers.py."
        )
    return towers[0]
