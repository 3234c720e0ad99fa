"""Linear layers that hand out their per-sample gradients' factors in the backward pass, and compute no summed ones.

For y = W x + b: dW[i] = Σ_t δ[i,t] x[i,t]ᵀ, db[i] = Σ_t δ[i,t] (spec: LESS §6.1). What backward needs goes through
`save_for_backward`, so (non-reentrant) gradient checkpointing saves memory as it should and each layer is taken once.
Axes: N leading rows (samples, or images in the projector), T tokens, o and i a layer's outputs and inputs, r LoRA's rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# (name of a weight, δ [N, T, o], inputs [N, T, i])
Take = Callable[[str, torch.Tensor, torch.Tensor], None]


@dataclass
class Branch:
    """One Linear of a group that shares its input; names are those of the tapped parameters, None for the rest.

    With LoRA: y = W x + b + scale · B (A x).
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    name: str | None = None
    lora_a: torch.Tensor | None = None
    lora_b: torch.Tensor | None = None
    scale: float = 1.0
    name_a: str | None = None
    name_b: str | None = None

    @property
    def tapped(self) -> bool:
        """Say whether any gradient of it is asked for."""
        return any((self.name, self.name_a, self.name_b))


class Group:
    """Linears that read one input: their LoRA inputs are one product, and their input gradients add up in place."""

    def __init__(self, branches: list[Branch], take: Take) -> None:
        self.branches, self.take = branches, take
        adapters = [b.lora_a for b in branches if b.lora_a is not None]
        self.lora_a = torch.cat(adapters) if len(adapters) > 1 else (adapters[0] if adapters else None)
        ends = torch.tensor([0 if b.lora_a is None else b.lora_a.shape[0] for b in branches]).cumsum(0).tolist()
        self.ranks = [slice(e - (0 if b.lora_a is None else b.lora_a.shape[0]), e) for b, e in zip(branches, ends)]
        self.anchor: torch.Tensor | None = None

    def __call__(self, x_NTi: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each branch's output [N, T, o]."""
        if self.anchor is None and any(b.tapped for b in self.branches):
            # makes the outputs require a gradient although neither weights nor, in the first layer, inputs do
            self.anchor = torch.zeros((), device=x_NTi.device, dtype=x_NTi.dtype, requires_grad=True)
        return _Grouped.apply(x_NTi, self.anchor, self)  # type: ignore[return-value]


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NTi: torch.Tensor, anchor: torch.Tensor | None, group: Group) -> tuple[torch.Tensor, ...]:
        flat_Ri = x_NTi.reshape(-1, x_NTi.shape[-1])
        hidden_Rr = None if group.lora_a is None else flat_Ri @ group.lora_a.T
        outputs = []
        for branch, ranks in zip(group.branches, group.ranks, strict=True):
            out_Ro = functional.linear(flat_Ri, branch.weight, branch.bias)
            if branch.lora_b is not None and hidden_Rr is not None:
                out_Ro.addmm_(hidden_Rr[:, ranks], branch.lora_b.T, alpha=branch.scale)
            outputs.append(out_Ro.view(*x_NTi.shape[:-1], -1))
        ctx.group = group
        ctx.save_for_backward(x_NTi, hidden_Rr)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *deltas: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        group: Group = ctx.group
        x_NTi, hidden_Rr = ctx.saved_tensors
        rows, wanted = x_NTi.shape[0], ctx.needs_input_grad[0]
        grad_Ri = None
        into_Rr = None if hidden_Rr is None else torch.empty_like(hidden_Rr)
        for branch, ranks, delta in zip(group.branches, group.ranks, deltas, strict=True):
            delta_Ro = delta.reshape(-1, delta.shape[-1])
            if wanted:
                grad_Ri = delta_Ro @ branch.weight if grad_Ri is None else grad_Ri.addmm_(delta_Ro, branch.weight)
            if branch.name is not None:
                group.take(branch.name, _by_row(delta, rows), _by_row(x_NTi, rows))
            if branch.lora_b is None or hidden_Rr is None or into_Rr is None:
                continue
            torch.mm(delta_Ro, branch.lora_b, out=into_Rr[:, ranks])
            if branch.name_b is not None:
                # the scale goes to the narrow factor
                group.take(branch.name_b, _by_row(delta, rows), _by_row(hidden_Rr[:, ranks] * branch.scale, rows))
            into_Rr[:, ranks] *= branch.scale
        if into_Rr is not None:
            if grad_Ri is not None:
                grad_Ri.addmm_(into_Rr, group.lora_a)
            for branch, ranks in zip(group.branches, group.ranks, strict=True):
                if branch.name_a is not None:
                    group.take(branch.name_a, _by_row(into_Rr[:, ranks], rows), _by_row(x_NTi, rows))
        return None if grad_Ri is None else grad_Ri.view_as(x_NTi), None, None


def _by_row(x: torch.Tensor, rows: int) -> torch.Tensor:
    return x.reshape(rows, -1, x.shape[-1])


def tap_linear(module: nn.Linear, name: str, take: Take) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a forward for a Linear module that takes its gradients under `name`."""
    group = Group([Branch(module.weight.detach(), detached(module.bias), name)], take)

    def forward(x: torch.Tensor) -> torch.Tensor:
        # [rows, i] without a token axis: one token per row
        wide = x if x.ndim > 2 else x[:, None]
        (out,) = group(wide)
        return out if x.ndim > 2 else out[:, 0]

    return forward


def detached(parameter: torch.Tensor | None) -> torch.Tensor | None:
    """Return a parameter's values outside of any graph."""
    return None if parameter is None else parameter.detach()
