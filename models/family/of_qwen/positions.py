"""Positions of three axes (M-RoPE) without a loop: Hugging Face's own waits for a GPU several times a row and picture.

A text's token is one place behind what stands before it on all axes. A picture's tokens begin at one place; row and column
are counted on from there, and what follows begins behind the longer side.
Axes: B rows, T tokens, I pictures, R image tokens of the batch.
"""

import torch


def positions(
    mask_BT: torch.Tensor, places: tuple[torch.Tensor, torch.Tensor], grids_I3: torch.Tensor, merge: int
) -> torch.Tensor:
    """Return them, i64 [3, B, T], for rows padded on the right; 0 at pads. Waits for no device.

    `mask_BT`: what is no pad, i64; `places`: rows and tokens of all image tokens, in order; `grids_I3`: patches of each
    picture in time, height and width; `merge`: patches of a token's side.
    """
    rows_R, tokens_R = places
    highs_I, wides_I = grids_I3[:, 1] // merge, grids_I3[:, 2] // merge
    counts_I = grids_I3[:, 0] * highs_I * wides_I
    total = len(rows_R)
    owner_R = torch.repeat_interleave(counts_I, output_size=total)
    within_R = torch.arange(total, device=mask_BT.device) - (counts_I.cumsum(0) - counts_I)[owner_R]
    # how far each token moves what follows: of a picture the last one alone
    step_R = torch.where(within_R + 1 == counts_I[owner_R], torch.maximum(highs_I, wides_I)[owner_R], 0)
    step_BT = torch.ones_like(mask_BT).index_put(places, step_R)
    high_R, wide_R = highs_I[owner_R], wides_I[owner_R]
    inside_3BT = mask_BT.new_zeros(3, *mask_BT.shape)
    inside_3BT[:, rows_R, tokens_R] = torch.stack(
        (within_R // (high_R * wide_R), within_R // wide_R % high_R, within_R % wide_R)
    )
    return (step_BT.cumsum(1) - step_BT + inside_3BT) * mask_BT
