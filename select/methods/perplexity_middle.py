"""Perplexity middle: rows of nearly the median loss (perplexity pruning, Marion et al., arXiv 2309.04564)."""

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...store import config
from ..needs import Needs
from ..ranked import Ranked
from ..rows import scores_table
from ..view import View


def middle_ranks(value_N: np.ndarray) -> np.ndarray:
    """Return each value's rank as a share in (0, 1); equal values have the mean of their ranks."""
    _, which_N, count_U = np.unique(value_N, return_inverse=True, return_counts=True)
    last_U = np.cumsum(count_U)
    return ((last_U - count_U / 2) / len(value_N))[which_N]


class PerplexityMiddle(Ranked):
    """Score = −|distance to the median|, of losses (nats a token) or of their ranks (shares of the pool).

    Perplexity is exp(loss), so its ranks are the loss's, and so is its median.
    """

    name = "perplexity_middle"
    needs = Needs(features=("loss",))

    class Config(config.Config):
        """What near the median means."""

        near: Literal["loss", "rank"] = Field(
            "loss",
            description="`loss`: by the distance in nats a token. `rank`: by the distance in ranks, so that as many "
            "rows are kept above the median as below it (published).",
        )

    def score(self, view: View, seed: int) -> pa.Table:
        """Return one score a row at the last checkpoint: 0 is the median, all else is below."""
        loss_N = view.load("loss", view.steps("loss")[-1])[:, 0].astype(np.float64)
        near = self.config.near  # type: ignore
        far_N = np.abs(loss_N - np.median(loss_N)) if near == "loss" else np.abs(middle_ranks(loss_N) - 0.5)
        return scores_table(view.ids, "", np.zeros(len(loss_N)), -far_N)


SELECTOR = PerplexityMiddle
