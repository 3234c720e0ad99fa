"""A LLaVA of other components than Hugging Face's class holds: its connector, or an LM head with a bias, is in config.json.

`connector: {"kind": …}` and `head_bias: true` are the keys; without them a folder is a plain
`LlavaForConditionalGeneration`. The vision tower and the language model need no key: Hugging Face finds them by
`vision_config` and `text_config`.
"""

from typing import Any

from torch import nn
from transformers import LlavaForConditionalGeneration

from .connectors import connector_of, make_connector


class PartsLlava(LlavaForConditionalGeneration):
    """`LlavaForConditionalGeneration` with the connector and the head that its config names, in their usual places."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        spec, text = connector_of(config), config.text_config
        if not spec.plain:
            std = getattr(text, "initializer_range", 0.02)
            self.model.multi_modal_projector = make_connector(spec, feature_width(config), text.hidden_size, std)
        if getattr(config, "head_bias", False):
            self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=True)
        self.post_init()


def class_of(config: Any) -> Any:
    """Return the class that holds the components which a config names: Hugging Face's own wherever it can."""
    plain = connector_of(config).plain and not getattr(config, "head_bias", False)
    return LlavaForConditionalGeneration if plain else PartsLlava


def feature_width(config: Any) -> int:
    """Return the values a tower token brings to the connector: the tower's width for each layer read."""
    layers = config.vision_feature_layer
    return config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
