"""Which rows are in which step: a pure function of (ids, seed, epoch), the same for any number of workers.

`group_by_modality` is LLaVA's sampler (spec: LLaVA §4): batches of one modality. Inside a step, rows of like length are in
one micro-batch, which pads least, where the loss is the mean over the step's tokens and the cut changes nothing; where it
is the published mean of micro-batches' means, these hold equally many characters, as LLaVA's do: in micro-batches of like
length a token of the shortest rows would weigh 6.7 times its share, one of the longest 0.3.
"""

import heapq
import math

import numpy as np

from ..store.arrays import Array
from .config import TrainConfig


class Order:
    """Global batches of row positions [global_batch]; positions count in the ids sorted ascending."""

    def __init__(self, config: TrainConfig, has_image: Array, n_chars: Array) -> None:
        self.config, self.has_image, self.n_chars = config, has_image, n_chars
        self.per_epoch = math.ceil(len(has_image) / config.global_batch)
        self._cached: tuple[int, Array] | None = None

    def batch(self, step: int) -> Array:
        """Return the positions of optimizer step `step` (0-based) [global_batch]."""
        epoch, position = divmod(step, self.per_epoch)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._epoch(epoch))
        return self._cached[1][position]

    def micro_batch(self, step: int, accumulated: int, rank: int) -> Array:
        """Return one worker's micro-batch; the k-th micro-batch of a step is the same whoever computes it."""
        micro = self.config.micro_batch
        k = accumulated * self.config.workers + rank
        return self.batch(step)[k * micro : (k + 1) * micro]

    def _epoch(self, epoch: int) -> Array:
        rng = np.random.default_rng([self.config.seed, epoch])
        size = self.config.global_batch
        order = rng.permutation(len(self.has_image))
        if self.config.group_by_modality:
            order = self._grouped(order, rng)
        # the last batch is filled from the epoch's start, so that every worker always has work
        return np.resize(order, (self.per_epoch, size))

    def _grouped(self, order: Array, rng: np.random.Generator) -> Array:
        size = self.config.global_batch
        whole: list[Array] = []
        rest: list[Array] = []
        for image in (True, False):
            mine = order[self.has_image[order] == image]
            cut = len(mine) - len(mine) % size
            whole += [self._by_length(mine[i : i + size]) for i in range(0, cut, size)]
            rest.append(mine[cut:])
        shuffled = [whole[i] for i in rng.permutation(len(whole))]
        return np.concatenate([*shuffled, np.concatenate(rest)])

    def _by_length(self, batch: Array) -> Array:
        longest_first = batch[np.argsort(-self.n_chars[batch], kind="stable")]
        if self.config.loss_mean == "step":
            return longest_first
        return np.concatenate(_even_chunks(longest_first, self.n_chars, self.config.micro_batch))


def _even_chunks(longest_first: Array, lengths: Array, size: int) -> list[Array]:
    """Deal rows, longest first, to chunks of `size` rows: each to the one that is shortest so far and has room."""
    chunks: list[list[int]] = [[] for _ in range(len(longest_first) // size)]
    shortest = [(0, number) for number in range(len(chunks))]
    for row in longest_first.tolist():
        total, number = heapq.heappop(shortest)
        chunks[number].append(row)
        if len(chunks[number]) < size:
            heapq.heappush(shortest, (total + int(lengths[row]), number))
    return [np.array(chunk) for chunk in chunks]
