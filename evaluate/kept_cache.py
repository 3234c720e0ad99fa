"""Keys and values of a batch at addresses that stay, so that a recorded step finds them again.

A prompt's keys and values are computed by Hugging Face's own forward pass and copied in; each step then adds one position.
Axes: B rows, N key-value heads, L positions, D values a head.
"""

from typing import Any

import torch

# attention kernels want rows of a mask aligned; few window lengths mean few recordings
STEP = 128


class KeptCache:
    """What attention layers call a cache (`update`, `get_seq_length`, `get_mask_sizes`): a window of kept tensors.

    `place_1`: where the next token goes; a recorded step moves it on.
    """

    is_compileable = False
    is_sliding = (False,)

    def __init__(self, rows: int, length: int, device: torch.device) -> None:
        """Hold `rows` rows and `length` positions; the layers' tensors are made when the first prompt is put in."""
        self.rows, self.length = rows, length
        self.place_1 = torch.zeros(1, dtype=torch.long, device=device)
        self.filled = 0
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._window = (rows, length)

    def put(self, prompt: Any, first_row: int) -> None:
        """Copy the cache of some rows' prompts in, from `first_row` on; `prompt` is a DynamicCache."""
        for i, layer in enumerate(prompt.layers):
            if i == len(self._layers):
                shapes = [(self.rows, t.shape[1], self.length, t.shape[3]) for t in (layer.keys, layer.values)]
                self._layers.append((layer.keys.new_zeros(shapes[0]), layer.values.new_zeros(shapes[1])))
            for kept_BNLD, new_BNLD in zip(self._layers[i], (layer.keys, layer.values), strict=True):
                rows, _, positions, _ = new_BNLD.shape
                kept_BNLD[first_row : first_row + rows, :, :positions].copy_(new_BNLD)

    def open(self, rows: int, positions: int, window: int) -> None:
        """Have steps see the first `rows` rows and `window` positions, `positions` of which are filled."""
        self._window, self.filled = (rows, window), positions
        self.place_1.fill_(positions)

    def update(
        self, keys_BN1D: torch.Tensor, values_BN1D: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put a step's keys and values in; return all that the window holds."""
        rows, window = self._window
        keys_BNLD, values_BNLD = (kept[:rows, :, :window] for kept in self._layers[layer])
        keys_BNLD.index_copy_(2, self.place_1, keys_BN1D)
        values_BNLD.index_copy_(2, self.place_1, values_BN1D)
        return keys_BNLD, values_BNLD

    def get_seq_length(self, *_: Any) -> int:
        """Return how many positions are filled."""
        return self.filled

    def get_mask_sizes(self, *_: Any) -> tuple[int, int]:
        """Return the window's length and where it begins."""
        return self._window[1], 0
