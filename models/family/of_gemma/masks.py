"""Which tokens a decoder attends to where the tokens of one picture attend both ways.

Axes: B rows, T tokens; S tokens that are attended to.
"""

from typing import Any

import torch

from ....store.errors import InputError


def both_ways(image_BT: torch.Tensor, config: Any, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the masks [B, 1, T, S] of full and sliding layers, as the attention of `config` (the decoder's) takes them.

    A token attends to itself, all before it, and all of its own picture: of its run of image tokens (`image_BT`). Sliding
    layers let go what lies further back than their window. Rows are padded on the right, so that pads need no mask.

    Raises:
        InputError: an attention that takes no such mask.
    """
    kind, window = config._attn_implementation, config.sliding_window
    if kind not in ("sdpa", "eager"):
        raise InputError(
            f"attention {kind!r}: tokens of one picture attend both ways in this model, which sdpa and eager alone can do."
        )
    begins_BT = image_BT & ~torch.nn.functional.pad(image_BT, (1, 0))[:, :-1]
    number_BT = begins_BT.int().cumsum(1)
    # words are of no picture: as those who attend they have another number than as those who are attended to
    asks_BT, gives_BT = number_BT.masked_fill(~image_BT, -1), number_BT.masked_fill(~image_BT, 0)
    place_T = torch.arange(image_BT.shape[1], device=image_BT.device)
    full_BTS = (asks_BT[:, :, None] == gives_BT[:, None]).logical_or_(place_T <= place_T[:, None])
    near_BTS = full_BTS if len(place_T) <= window else full_BTS & (place_T > place_T[:, None] - window)
    masks = {"full_attention": full_BTS[:, None], "sliding_attention": near_BTS[:, None]}
    return masks if kind == "sdpa" else {name: _added(mask, dtype) for name, mask in masks.items()}


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(mask, zero, torch.finfo(dtype).min)
