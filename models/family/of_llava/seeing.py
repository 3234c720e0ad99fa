"""What a LLaVA's connector reads of its tower. Axes: N squares of pixels, D a tower's width."""

from typing import Any

import torch


def chosen_states(tower: Any, pixels: torch.Tensor, config: Any) -> torch.Tensor:
    """Return [N, tokens, D]: the configured layers side by side, without the class token where the strategy drops it."""
    states, layers = tower(pixels, output_hidden_states=True).hidden_states, config.vision_feature_layer
    chosen = [states[i] for i in ([layers] if isinstance(layers, int) else layers)]
    if config.vision_feature_select_strategy == "default":
        chosen = [c[:, 1:] for c in chosen]
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)
