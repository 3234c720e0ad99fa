"""Perplexity: exp of the mean loss over a row's trained tokens, 1 for answers that the model would have given itself."""

from typing import Literal

from pydantic import Field
from vinnow.actors.config import FeatureConfig
from vinnow.actors.kind import Kind


class Perplexity(Kind):
    """One number a row, from 1 on."""

    name = "perplexity"

    class Config(FeatureConfig):
        """Where values are cut."""

        kind: Literal["perplexity"] = Field("perplexity", description="This kind: perplexity.")
        most: float = Field(
            1e6, description="Larger values are cut to it, so that one odd row does not stretch every scale."
        )

    def dim(self, hidden, tasks):
        """Return 1."""
        return 1

    def recipe(self):
        """Return what the numbers depend on beside text and precision."""
        return {"most": self.config.most}

    def tap(self, model, spec, number):
        """Return a tap that turns a batch into [B, 1]."""
        from vinnow.models.taps.forward import ForwardTap, last_hidden, sample_losses

        def perplexity_B1(model, batch):
            losses_B, _ = sample_losses(model, batch, last_hidden(model, batch))
            return losses_B.exp().clamp(max=self.config.most)[:, None]

        return ForwardTap(model, perplexity_B1)

    def cost(self, shape, row, tasks):
        """Return a forward pass."""
        from vinnow.models.cost import forward_flop

        return forward_flop(shape, row)


KIND = Perplexity
