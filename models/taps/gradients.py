"""Exact per-sample gradients of chosen Linear modules for a whole batch, from one forward and one backward pass.

Each sample's own mean loss is differentiated. Right padding under a causal mask gives δ = 0 at pads, so nothing needs to be
masked. The projector's rows belong to images; they are added up by owner, and a text-only sample gets zeros there. Nothing
requires a gradient but what leads to the tapped modules: no summed weight gradients, no `.grad`. Source: spec LESS §6.1.
Axes: B samples, N leading rows (samples or images), T tokens, o and i a Linear's outputs and inputs, P parameter elements.
"""

from collections import Counter
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any

import torch

from ...store.errors import InputError
from ..components import parameters_of, pick_linears
from ..forward import decode, embed, on_device
from ..products import Product, weight_name
from ..projections.build import make_sink
from ..projections.config import ProjectionConfig
from ..projections.sink import Sink
from ..registry import base_component, family_of
from .base import Tap
from .forward import sample_losses
from .lean.architectures import reason_against
from .lean.decoder import LeanDecoder
from .modes import Transform, make_transform
from .tapped import tap_linear

# what runs the decoder
LEAN, THEIRS = "the lean decoder", "Hugging Face's code"


class GradientTap(Tap):
    """Turns a collated batch into projected per-sample gradients [B, K].

    `projection`: a config, or a sink of one's own. `transform`: the maths mode (`modes.py`), `sgd` by default.
    `fast=False` runs the language model by Hugging Face's own code, which any architecture can; the numbers agree. Without
    it that code runs what the lean decoder does not know exactly, a model or a batch; `facts` says how many rows, and why.
    """

    def __init__(
        self,
        model: Any,
        which: str,
        projection: ProjectionConfig | Sink,
        transform: Transform | None = None,
        *,
        fast: bool = True,
    ) -> None:
        if model.training:
            raise InputError("gradients are taken in eval mode: dropout would make them random. Call model.eval().")
        self.model, self.transform = model, transform or make_transform("sgd", None)
        self.modules = pick_linears(model, which)
        self.sink = make_sink(projection, self.sizes()) if isinstance(projection, ProjectionConfig) else projection
        self.dim = self.sink.dim
        model.requires_grad_(False)
        self.family = family_of(model)
        self._batch: dict[str, Any] = {}
        self._rows = 0
        # why Hugging Face's code runs the decoder; None: the lean one does
        self.reason = reason_against(model) if fast else "it was asked for"
        self.decoder = None
        if self.reason is None:
            self.decoder = LeanDecoder(self.family.decoder(model), self.modules, self._take)
        # rows by what ran their decoder
        self.ran = Counter[str]()

    def sizes(self) -> dict[str, int]:
        """Return the element count of each tapped parameter, by canonical name, in the model's order."""
        return {n: p.numel() for n, p in self.parameters().items()}

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the tapped parameters by canonical name."""
        return parameters_of(self.modules)

    def tensors(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return vectors [B, K] (float32; float64 for a float64 model); `batch` may bring `seen`."""
        batch = on_device(batch, self.model)
        first = next(self.model.parameters())
        self._rows, self._batch = batch["input_ids"].shape[0], batch
        self.sink.start(self._rows, first.device, first.dtype)
        inside = set[str]() if self.decoder is None else self.decoder.taken
        with torch.enable_grad(), self._tapped(self.modules.keys() - inside):
            embeds_BTH, arguments = embed(self.model, batch)
            reason = self.reason if self.decoder is None else self.decoder.reason_against(arguments, embeds_BTH)
            self.ran[LEAN if reason is None else f"{THEIRS}: {reason}"] += self._rows
            # modules inside the lean decoder are run by its own code
            with self._tapped(inside if reason is not None else set()):
                if self.decoder is not None and reason is None:
                    hidden_BTH = self.decoder(embeds_BTH, arguments)
                else:
                    hidden_BTH = decode(self.model, embeds_BTH, arguments)
                losses_B, _ = sample_losses(self.model, batch, hidden_BTH)
                if losses_B.requires_grad:  # a text-only batch never reaches the projector
                    losses_B.sum().backward()
        return self.sink.finish()

    def norms(self) -> torch.Tensor | None:
        """Return the exact norms [B] of the last batch, where the sink knows them."""
        return self.sink.norms()

    def facts(self) -> dict[str, Any]:
        """Return what the maths mode counted so far, and under `ran` how many rows went which way through the decoder."""
        return self.transform.facts() | {"ran": dict(self.ran)}

    @contextmanager
    def _tapped(self, names: Set[str]) -> Iterator[None]:
        mine = {n: m for n, m in self.modules.items() if n in names}
        for name, module in mine.items():
            module.forward = tap_linear(module, name, self._take)
        try:
            yield
        finally:
            for module in mine.values():
                del module.forward

    def _take(self, name: str, delta_NTo: torch.Tensor, inputs_NTi: torch.Tensor) -> None:
        pictures = base_component(f"{name}.") in ("projector", "vision_tower")
        owner_I = self.family.owner(self._batch, len(delta_NTo)) if pictures else None
        if owner_I is not None and len(owner_I) > len(self._batch["image_owner"]):
            # patches or tiles: a gradient of each would be as large as a whole sample's
            (delta_NTo, rows_I), (inputs_NTi, _) = (_by_sample(x, owner_I) for x in (delta_NTo, inputs_NTi))
            owner_I = rows_I
        module = self.modules[name]
        weight, bias = weight_name(name, module), module.bias is not None
        if isinstance(module, Product):  # whose weight lies the other way round
            delta_NTo, inputs_NTi = inputs_NTi, delta_NTo
        if self.sink.factors:
            self.sink.add_factors(weight, delta_NTo, inputs_NTi, owner_I)  # type: ignore[attr-defined]
        else:
            weight_NP = torch.bmm(delta_NTo.transpose(1, 2), inputs_NTi).flatten(1)
            self._emit(weight, weight_NP, owner_I)
        if bias:
            self._emit(f"{name}.bias", delta_NTo.sum(1), owner_I)

    def _emit(self, name: str, grads_NP: torch.Tensor, owner_I: torch.Tensor | None) -> None:
        if owner_I is None:
            self.sink.add(name, self.transform(name, grads_NP))
            return
        # several images of one sample add up; samples without an image get zeros, also where a momentum would show
        present_B1 = grads_NP.new_zeros(self._rows, 1).index_fill_(0, owner_I, 1)
        grads_BP = grads_NP.new_zeros(self._rows, grads_NP.shape[1]).index_add_(0, owner_I, grads_NP)
        self.sink.add(name, self.transform(name, grads_BP) * present_B1)


def _by_sample(x_NTW: torch.Tensor, owner_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what belongs to each sample side by side, zeros behind, and the samples that have any of it, in order."""
    rows_S, place_N, counts_S = torch.unique(owner_N, return_inverse=True, return_counts=True)
    slot_N = torch.arange(len(owner_N), device=owner_N.device) - (counts_S.cumsum(0) - counts_S)[place_N]
    laid = x_NTW.new_zeros(len(rows_S), int(counts_S.max()), *x_NTW.shape[1:])
    return laid.index_put((place_N, slot_N), x_NTW).flatten(1, 2), rows_S
