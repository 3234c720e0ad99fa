"""What XMAS's released code does besides its paper's formula, for `attention: xmas` (release of 2025-10; spec: XMAS §3.1).

`attention_scores(k_proj, q_proj)` is called with (q_proj, k_proj): rows are text keys, columns image queries, and the
softmax runs over queries. Grouped keys are repeated element by element, not head by head. A batch is padded to its longest
row of raw ids, a picture counting as one; only then does each picture grow by 575 tokens. Pads are no mask. Text and image
are cut at fixed offsets. A row with fewer pictures ends in blank embeddings. Values come from `svd_lowrank` without
oversampling, whose random start follows one seed: they depend on batch-mates and on the order of batches.
Axes: B rows, T tokens, R rows and C columns of the block, W width.
"""

from typing import Any

import torch
from torch.nn import functional

from ..protocol import base_of
from ..registry import family_of

# first image column, one past the last, first text row
Offsets = tuple[int, int, int]
OFFSETS: Offsets = (35, 611, 612)
SEED = 42


def as_released(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    """Return a collated batch as long as the released code makes it; `empty` [B, T] marks what has no embedding there."""
    ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
    config = base_of(model).config
    image_B = family_of(model).image_mask(config, ids_BT).sum(1)
    pictures_B = torch.bincount(batch["image_owner"].to(ids_BT.device), minlength=len(ids_BT))
    grown_B = image_B - pictures_B
    ends_B = (mask_BT.sum(1) - grown_B).max() + grown_B
    more = int(ends_B.max()) - ids_BT.shape[1]
    pad = batch.get("pad_id", config.get_text_config().pad_token_id or 0)
    longer = {"input_ids": pad, "attention_mask": 0, "labels": -100}
    padded = {name: functional.pad(batch[name], (0, more), value=value) for name, value in longer.items()}
    empty_BT = torch.arange(padded["input_ids"].shape[1], device=ids_BT.device) >= ends_B[:, None]
    return batch | padded | {"empty": empty_BT}


def fixed_places(ids_BT: torch.Tensor, offsets: Offsets) -> dict[str, torch.Tensor]:
    """Return the rows and columns of the published cut, all of them taken as real."""
    first, last, text = offsets
    rows, tokens = ids_BT.shape
    at_L = torch.arange(tokens, device=ids_BT.device)
    positions = {}
    for name, places_M in (("text", at_L[text:]), ("image", at_L[first : min(last, tokens)])):
        positions[name] = places_M.expand(rows, -1)
        positions[f"{name}_real"] = torch.ones_like(positions[name], dtype=torch.bool)
    return positions


def elementwise(key_BLW: torch.Tensor, width: int) -> torch.Tensor:
    """Return grouped keys at the queries' width: each element several times in a row, across heads."""
    return key_BLW.repeat_interleave(width // key_BLW.shape[-1], dim=-1)


class Sketch:
    """The random start of `svd_lowrank`, from the release's seed on: one stream of numbers, nobody else's.

    The release seeds once; its data loader draws a number before the first batch. Here a part of the pool begins anew
    (`restart`), so that values do not depend on how many actors there are or where a run went on: those of the first part
    are the release's.
    """

    def __init__(self) -> None:
        self._state: torch.Tensor | None = None

    def restart(self) -> None:
        """Begin the stream anew."""
        self._state = None

    def values(self, block_BRC: torch.Tensor, k: int) -> torch.Tensor:
        """Return the k values [B, k] of `svd_lowrank` with q = k and 2 iterations; fewer rows give zeros behind."""
        device = block_BRC.device
        source = torch.cuda if device.type == "cuda" else torch
        where = {"device": device} if device.type == "cuda" else {}
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if self._state is None:
                torch.manual_seed(SEED)
                torch.empty((), dtype=torch.int64).random_()
            else:
                source.set_rng_state(self._state, **where)
            q = min(k, *block_BRC.shape[1:])
            values = torch.svd_lowrank(block_BRC.float(), q=q, niter=2)[1]
            self._state = source.get_rng_state(**where)
        return functional.pad(values, (0, k - q))
