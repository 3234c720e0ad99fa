"""Products with a weight that another module holds: what a Linear does, where a model's own code has a bare parameter.

Taps and prices see a `Product` as the Linear that it is; the parameter keeps its module, its name and its layout, so files,
optimizers and ZeRO know nothing of it.
Axes: N leading rows, T tokens, i and o inputs and outputs.
"""

from typing import Any

import torch
from torch import nn


class Product(nn.Module):
    """y = x W with `holder`'s parameter `held`, W [i, o]; it lies inside its holder and has no parameter of its own."""

    bias = None

    def __init__(self, holder: nn.Module, held: str) -> None:
        super().__init__()
        # in a tuple: a module in an attribute would become a child, and this one lies inside it
        self._holder, self.held = (holder,), held
        self.in_features, self.out_features = self.kept.shape

    @property
    def kept(self) -> nn.Parameter:
        """The parameter, [i, o]; asked for anew each time, since others may put another in its place."""
        return getattr(self._holder[0], self.held)

    @property
    def weight(self) -> torch.Tensor:
        """The weight as a Linear would have it, [o, i]."""
        return self.kept.T

    def forward(self, x_NTi: torch.Tensor) -> torch.Tensor:
        """Return [N, T, o]."""
        return torch.matmul(x_NTi, self.kept)


# what a gradient of a weight can be taken of
LINEARS = (nn.Linear, Product)


def weight_name(name: str, module: Any) -> str:
    """Return the name of the weight of a Linear or product that is called `name`."""
    return f"{name.rpartition('.')[0]}.{module.held}" if isinstance(module, Product) else f"{name}.weight"
