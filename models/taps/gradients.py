"""Exact per-sample gradients of chosen Linear modules for a whole batch, from one forward and one backward pass.

For y = W x + b: dW[i] = Σ_t δ[i,t] x[i,t]ᵀ, db[i] = Σ_t δ[i,t], of sample i's own mean loss. Right padding under a causal
mask gives δ = 0 at pads, so nothing needs to be masked. The projector's rows belong to images; they are added up by owner,
and a text-only sample gets zeros there. Source: spec LESS §6.1. Axes: B samples, I images, T tokens, P parameter elements.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ...store.errors import InputError
from ..parts import part_of, pick_linears
from ..projection import ProjectionConfig, make_sink
from .forward import last_hidden, sample_losses, to_device

Mode = Literal["sgd", "sign"]


class GradientTap:
    """Turns a collated batch into projected per-sample gradients [B, K]."""

    def __init__(self, model: Any, which: str, projection: ProjectionConfig, mode: Mode = "sgd") -> None:
        if model.training:
            raise InputError("gradients are taken in eval mode: dropout would make them random. Call model.eval().")
        self.model, self.mode = model, mode
        self.modules = pick_linears(model, which)
        sizes = {}
        for name, module in self.modules.items():
            sizes[f"{name}.weight"] = module.weight.numel()
            if module.bias is not None:
                sizes[f"{name}.bias"] = module.bias.numel()
        self.sink = make_sink(projection, sizes)
        self.dim = self.sink.dim
        # nothing requires a gradient but the tapped modules' inputs: no summed dW, no .grad buffers
        model.requires_grad_(False)

    def __call__(self, batch: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Return the vectors [B, K] (float32; float64 for a float64 model)."""
        return self.tensors(batch).cpu().numpy()

    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """The same on the model's device."""
        batch = to_device(batch, self.model)
        rows = batch["input_ids"].shape[0]
        first = next(self.model.parameters())
        self.sink.start(rows, first.device, first.dtype)
        owner_I = batch.get("image_owner")
        handles = [h for n, m in self.modules.items() for h in self._hook(n, m, rows, owner_I)]
        try:
            with torch.enable_grad():
                losses_B, _ = sample_losses(self.model, batch, last_hidden(self.model, batch))
                if losses_B.requires_grad:  # a text-only batch never reaches the projector
                    losses_B.sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        return self.sink.finish()

    def _hook(self, name: str, module: nn.Linear, rows: int, owner_I: torch.Tensor | None) -> list[Any]:
        by_image = part_of(name) in ("projector", "vision_tower")

        def before(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            # the graph starts at the first tapped module: what lies before it is not differentiated
            return None if args[0].requires_grad else (args[0].detach().requires_grad_(), *args[1:])

        def after(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            inputs = args[0].detach()
            if out.requires_grad:
                out.register_hook(
                    lambda delta: self._take(name, module, inputs, delta, (rows, owner_I if by_image else None))
                )

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _take(
        self,
        name: str,
        module: nn.Linear,
        inputs: torch.Tensor,
        delta: torch.Tensor,
        owners: tuple[int, torch.Tensor | None],
    ) -> None:
        rows, owner_I = owners
        inputs_NTi = inputs.reshape(inputs.shape[0], -1, inputs.shape[-1])
        delta_NTo = delta.detach().reshape(delta.shape[0], -1, delta.shape[-1])
        weight_NP = torch.bmm(delta_NTo.transpose(1, 2), inputs_NTi).flatten(1)
        self._emit(f"{name}.weight", weight_NP, rows, owner_I)
        if module.bias is not None:
            self._emit(f"{name}.bias", delta_NTo.sum(1), rows, owner_I)

    def _emit(self, name: str, grads_NP: torch.Tensor, rows: int, owner_I: torch.Tensor | None) -> None:
        if owner_I is not None:
            # several images of one sample add up; samples without an image keep zeros
            grads_NP = grads_NP.new_zeros(rows, grads_NP.shape[1]).index_add_(0, owner_I, grads_NP)
        self.sink.add(name, _MODES[self.mode](grads_NP))


_MODES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"sgd": lambda g: g, "sign": torch.sign}
