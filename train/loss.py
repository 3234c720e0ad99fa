"""The module that DeepSpeed wraps: a LLaVA with its training loss."""

from typing import Any

import torch
from torch import nn

from ..models.load import base_of
from ..models.mores import steer


def trained_tokens(batch: dict[str, Any]) -> int:
    """Return how many tokens of a collated batch carry loss: those with a label, of which the first predicts nothing."""
    return int((batch["labels"][:, 1:] != -100).sum())


class LossModule(nn.Module):
    """Cross-entropy over a micro-batch's trained tokens: their mean, or their share of a whole step's mean.

    Only label positions go through the LM head. A batch without a trained token has loss zero, not NaN. A batch without a
    picture sends a blank one through tower and projector and scatters nothing of it: every batch has one and the same
    graph, so gradients become ready in one order on every rank. ZeRO-2 reduces them in buckets by that order; a
    text-only graph of another shape made it add up gradients of different parameters, without an error.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: dict[str, Any], share: float | None = None) -> torch.Tensor:
        """Return the loss, a scalar in float32: the mean (nats a token), or with `share` the sum times it.

        With `share` = micro-batches of the step / its trained tokens, the mean over the step's micro-batches, which is what
        engines take, is the mean over all its trained tokens, however they are spread.
        """
        base = base_of(self.model)
        hidden_BTH = self._hidden(base, batch)
        target_BT = batch["labels"][:, 1:]
        rows, at = torch.nonzero(target_BT != -100, as_tuple=True)
        if len(rows):
            logits = base.lm_head(hidden_BTH[rows, at]).float()
            kind = "mean" if share is None else "sum"
            loss = nn.functional.cross_entropy(logits, target_BT[rows, at], reduction=kind)
            loss = loss if share is None else loss * share
        else:
            loss = base.lm_head(hidden_BTH[:, :1]).float().sum() * 0
        return loss

    def _hidden(self, base: Any, batch: dict[str, Any]) -> torch.Tensor:
        embeds_BTH = base.get_input_embeddings()(batch["input_ids"])
        pixels = batch["pixel_values"]
        if pixels is None:
            side = base.config.vision_config.image_size
            pixels = embeds_BTH.new_zeros(1, 3, side, side)
        features = torch.cat(list(base.get_image_features(pixel_values=pixels).pooler_output)).to(embeds_BTH.dtype)
        marks_BT1 = (batch["input_ids"] == base.config.image_token_id)[:, :, None]
        if batch["pixel_values"] is not None and int(marks_BT1.sum()) != len(features):
            raise ValueError(f"{int(marks_BT1.sum())} image tokens in the batch, {len(features)} image features")
        embeds_BTH = embeds_BTH.masked_scatter(marks_BT1, features)
        steer(self.model, batch["input_ids"])
        # rows are padded on the right, so the causal mask alone is exact for all but pads, which have no label; a mask of
        # pads would only keep the flash kernels away
        return base.model.language_model(inputs_embeds=embeds_BTH, use_cache=False).last_hidden_state
