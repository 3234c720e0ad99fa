"""How a decoder divides its attention between picture and question while it answers (LMAR; spec: MoReS §4).

The paper leaves the queries open; here they are the positions whose outputs chose the generated tokens: the prompt's last
token, then each generated token but the last. So an answer that ends at once still has one query, and queries are the rows
that `generate(output_attentions=True)` hands out. They are read while the model generates, behind its own rotary embedding
and norms, and only two sums a row, layer and step are kept: one row of attention more a step, and no second pass.
Axes: B rows, T prompt tokens (padded on the left), K keys of the cache, N heads, G key heads, E head width, L layers,
S steps (generated tokens); the 2 are image and text.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...store.errors import InputError
from ..registry import family_of
from .attention import products

NAME = "vinnow_modality"
# what makes weights other than softmax(q·kᵀ · scale + mask), or is no part of the mask
OTHER_MATHS = ("softcap", "s_aux", "position_bias")
# for all of the library: a name that this table does not hold gets no mask at all, without a word
AttentionMaskInterface.register(NAME, sdpa_mask)


class ModalityTap:
    """Watches one `generate` at a time; any decoder whose attention goes through Hugging Face's AttentionInterface."""

    def __init__(self, model: Any) -> None:
        self.lm = family_of(model).decoder(model)
        self.layers = int(self.lm.config.num_hidden_layers)
        self._marks_BT2 = torch.empty(0)
        self._seen: list[list[torch.Tensor]] = []

    @contextmanager
    def watch(self, image_BT: torch.Tensor, text_BT: torch.Tensor) -> Iterator[None]:
        """Read what the model's `generate` attends to inside the block; the masks say which prompt tokens count as what.

        The prompts are padded on the left, all of them in one call. Answers are those of `sdpa` attention.

        Raises:
            InputError: the decoder's attention is no softmax over scaled products, so it cannot be read exactly.
        """
        self._marks_BT2 = torch.stack((image_BT, text_BT), -1)
        self._seen = [[] for _ in range(self.layers)]
        config = self.lm.config
        before = config._attn_implementation
        ALL_ATTENTION_FUNCTIONS[NAME] = self._attend
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = before
            del ALL_ATTENTION_FUNCTIONS[NAME]

    def shares(self, counts_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attention on image and on text tokens, [B, L] each: sums over tokens, means over heads and queries.

        `counts_B`: how many tokens each row generated, its end mark included; later steps of its batch are not its own.

        Raises:
            InputError: a layer attends to nothing that could be seen.
        """
        steps = len(self._seen[0])
        if not steps or any(len(seen) != steps for seen in self._seen):
            blind = [i for i, seen in enumerate(self._seen) if not seen or len(seen) != steps]
            raise InputError(
                f"{type(self.lm).__name__}: the attention of layers {blind} cannot be read (no softmax attention through "
                "Hugging Face's AttentionInterface), so its modality imbalance cannot be measured."
            )
        sums_SLB2 = torch.stack([torch.stack(seen) for seen in self._seen], 1)
        own_SB = torch.arange(steps, device=sums_SLB2.device)[:, None] < counts_B.to(sums_SLB2.device)
        means_LB2 = (sums_SLB2 * own_SB[:, None, :, None]).sum(0) / own_SB.sum(0)[:, None]
        return means_LB2[..., 0].T, means_LB2[..., 1].T

    def _attend(
        self,
        module: Any,
        query_BNQE: torch.Tensor,
        key_BGKE: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        number = getattr(module, "layer_idx", None)
        other = [name for name in OTHER_MATHS if kwargs.get(name) is not None]
        if other or not isinstance(number, int) or not 0 <= number < self.layers:
            raise InputError(
                f"{type(module).__name__}: this attention (layer {number}, {', '.join(other) or 'unnumbered'}) is not "
                "softmax(q·kᵀ) alone, so modality imbalance cannot be read from it exactly."
            )
        scale = kwargs.get("scaling")
        scale = query_BNQE.shape[-1] ** -0.5 if scale is None else scale
        # padded on the left: every row's query is the last one
        self._seen[number].append(
            self._sums(query_BNQE[:, :, -1], key_BGKE, mask, float(scale), len(self._seen[number]))
        )
        return sdpa_attention_forward(module, query_BNQE, key_BGKE, value, mask, **kwargs)

    def _sums(
        self, query_BNE: torch.Tensor, key_BGKE: torch.Tensor, mask: torch.Tensor | None, scale: float, step: int
    ) -> torch.Tensor:
        """Return one step's attention on image and text tokens, mean over heads, [B, 2] in float32 or wider."""
        rows, groups, keys = key_BGKE.shape[:3]
        # the heads that share a key head lie side by side
        query = query_BNE.unflatten(1, (groups, -1)).flatten(0, 1)
        scores_BNK = products(query, key_BGKE.flatten(0, 1)).mul_(scale).view(rows, -1, keys)
        if mask is not None:
            last_BNK = mask[:, :, -1, :keys]
            if last_BNK.dtype == torch.bool:
                scores_BNK = scores_BNK.masked_fill(~last_BNK, float("-inf"))
            else:
                scores_BNK = scores_BNK + last_BNK
        weights_BK = scores_BNK.softmax(-1).mean(1)
        # a sliding cache has let the first keys go; what was generated is neither image nor question
        tokens = self._marks_BT2.shape[1]
        first = tokens + step - keys
        assert first >= 0, "a cache longer than what it holds"
        marks_BK2 = self._marks_BT2[:, first:].to(weights_BK.dtype)
        return torch.einsum("bk,bkc->bc", weights_BK[:, : marks_BK2.shape[1]], marks_BK2)
