"""MoReS: a few visual tokens of each row are steered after chosen decoder layers; the language model stays frozen.

At a chosen position the layer's output h becomes h + R (W h + b − Rᵀ h), where R [D, r] has orthonormal columns (spec:
MoReS §1.1; LoReFT's equation on visual tokens). R is the Q of a trained D×r parameter's QR in float32, columns turned so
that the triangle's diagonal is positive: no D×D buffer, whatever weight decay and bfloat16 do. Positions are found from the
image token's ids. Hooks stay registered, so gradient checkpointing may run them again. After the last layer nothing reads
image tokens but the labels beside them: its parameters are in the published count and get no gradient.
Axes: B rows, T tokens, D the language model's width, M steered tokens of the batch, r the rank.
"""

from functools import partial
from typing import Any

import torch
from torch import nn

from ..store.errors import InputError
from .protocol import base_of
from .registry import family_of
from .specs import POLICY, MoresSpec


def steered_BT(image_BT: torch.Tensor, policy: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which tokens a policy takes, as two masks [B, T]: the first ones (or all that it takes), and the last ones."""
    rank_BT = image_BT.long().cumsum(1) - 1
    count_B1 = image_BT.long().sum(1, keepdim=True)
    match = POLICY.fullmatch(policy)
    assert match is not None
    if match[1] is not None:
        first, last = int(match[1]), int(match[2])
        return image_BT & (rank_BT < first), image_BT & (rank_BT >= count_B1 - last)
    if match[3] is not None:
        # of 576 tokens 9 are 0, 71, …, 568; where there are no more than that, all of them
        steps_B1 = (count_B1.clamp(max=int(match[3])) - 1).clamp(min=1)
        apart_B1 = ((count_B1 - 1) // steps_B1).clamp(min=1)
        taken_BT = (rank_BT % apart_B1 == 0) & (rank_BT // apart_B1 < int(match[3]))
        return image_BT & taken_BT, torch.zeros_like(image_BT)
    # in float64: a ratio of 0.29 of 100 tokens is 29, not 28
    wanted_B1 = (count_B1.double() * float(match[4])).sub(1e-9).ceil().long()
    # the k-th of n is passed where r·k/n crosses a whole number: exactly k of them, in integers
    taken_BT = (rank_BT + 1) * wanted_B1 // count_B1.clamp(min=1) > rank_BT * wanted_B1 // count_B1.clamp(min=1)
    return image_BT & taken_BT, torch.zeros_like(image_BT)


class Intervention(nn.Module):
    """One layer's R, W and b; `forward` maps steered vectors [M, D] to steered vectors, in their own type."""

    def __init__(self, width: int, spec: MoresSpec) -> None:
        super().__init__()
        self.orthogonal = spec.orthogonal
        self.rotate = nn.Parameter(torch.empty(width, spec.rank))
        self.source = nn.Linear(width, spec.rank)
        self.dropout = nn.Dropout(spec.dropout)
        if not self.rotate.is_meta:
            nn.init.normal_(self.rotate, std=width**-0.5)
            if spec.start == "identity":
                with torch.no_grad():
                    self.source.weight.copy_(self.basis(torch.float32).T)
                    self.source.bias.zero_()

    def basis(self, dtype: torch.dtype) -> torch.Tensor:
        """Return R [D, r] in float32 or wider."""
        if not self.orthogonal:
            return self.rotate.to(dtype)
        q_Dr, triangle_rr = torch.linalg.qr(self.rotate.to(dtype))
        # QR leaves the signs open; fixed ones make R a function of the parameter that does not jump
        signs_r = torch.where(triangle_rr.detach().diagonal() < 0, -1.0, 1.0).to(dtype)
        return q_Dr * signs_r

    def forward(self, h_MD: torch.Tensor) -> torch.Tensor:
        """Return h + dropout(R (W h + b − Rᵀ h))."""
        dtype = torch.promote_types(h_MD.dtype, torch.float32)
        x_MD, basis_Dr = h_MD.to(dtype), self.basis(dtype)
        wanted_Mr = nn.functional.linear(x_MD, self.source.weight.to(dtype), self.source.bias.to(dtype))
        return (x_MD + self.dropout((wanted_Mr - x_MD @ basis_Dr) @ basis_Dr.T)).to(h_MD.dtype)


class Mores(nn.Module):
    """A model's interventions and the positions of its present batch; `base` is the folder of the model underneath."""

    def __init__(self, layers: int, width: int, spec: MoresSpec) -> None:
        super().__init__()
        self.spec, self.base = spec, ""
        if spec.rank > width:
            raise InputError(f"mores.rank {spec.rank} is more than the language model's width {width}.")
        self.numbers = spec.chosen_layers(layers)
        self.layers = nn.ModuleDict({str(i): Intervention(width, spec) for i in self.numbers})
        # set for the next forward pass; taken by it, and kept for a backward pass that runs layers again
        self._next: torch.Tensor | None = None
        self._now: dict[bool, tuple[torch.Tensor, torch.Tensor]] | None = None

    def begin(self, image_BT: torch.Tensor) -> None:
        """Take the image tokens of the batch that the language model will see next."""
        self._next = image_BT

    def open(self, tokens: int, cached: int) -> None:
        """Find the positions of a forward pass of `tokens` tokens, after `cached` ones of a cache.

        Raises:
            InputError: the batch's ids are unknown, or pictures come after a cache, where a row's other ones are not seen.
        """
        image_BT, self._next = self._next, None
        if cached and (tokens == 1 or (image_BT is not None and not bool(image_BT.any()))):
            self._now = None  # generated tokens are never steered
            return
        if image_BT is None or image_BT.shape[1] != tokens:
            raise InputError(
                "a model with MoReS must be told the batch's token ids first: call mores.steer(model, ids)."
            )
        if cached:
            raise InputError(
                "MoReS counts a row's image tokens: give all of its pictures in one pass, not after a cache."
            )
        first_BT, last_BT = steered_BT(image_BT, self.spec.positions)
        masks = (first_BT | last_BT,) if self.spec.share else (first_BT, last_BT)
        places = [torch.nonzero(mask_BT, as_tuple=True) for mask_BT in masks]
        self._now = {False: places[0], True: places[-1]}

    def edit(self, number: int, h_BTD: torch.Tensor) -> torch.Tensor:
        """Return a layer's output with its chosen tokens steered."""
        if self._now is None:
            return h_BTD
        rows_M, at_M = self._now[2 * self.numbers.index(number) >= len(self.numbers)]
        if not len(rows_M) and not torch.is_grad_enabled():
            return h_BTD
        # with gradients, a batch without a picture goes the same way: every rank must have one and the same graph
        return h_BTD.index_put((rows_M, at_M), self.layers[str(number)](h_BTD[rows_M, at_M]))


def mores_of(model: Any) -> Mores | None:
    """Return the MoReS of a model, or of the base inside a PEFT wrapper, if it has one."""
    return getattr(base_of(model), "mores", None)


def steer(model: Any, ids_BT: torch.Tensor) -> None:
    """Tell a model's MoReS, if it has one, the ids of the batch whose embeddings it sees next.

    Only for callers of the bare language model: Hugging Face's `forward` and `generate` tell it by themselves.
    """
    mores = mores_of(model)
    if mores is not None:
        mores.begin(family_of(model).image_mask(base_of(model).config, ids_BT))


def add_mores(model: Any, spec: MoresSpec) -> Mores:
    """Give a model interventions as `model.mores`, hooked for good; the model's own weights stop requiring gradients.

    Raises:
        InputError: it has some already; layers or rank do not fit it.
    """
    base, family = base_of(model), family_of(model)
    if mores_of(base) is not None:
        raise InputError("the model has MoReS already; give the model underneath.")
    lm = family.decoder(base)
    mores = Mores(len(lm.layers), lm.config.hidden_size, spec)
    model.requires_grad_(False)
    anchor = next(lm.parameters())
    # parameters are in the model's type, or in float32 on a quantised one
    kind = anchor.dtype if anchor.dtype.is_floating_point else torch.float32
    base.mores = mores.to(anchor.device, kind).train(model.training)
    base.model.register_forward_pre_hook(
        partial(_tell, mores, partial(family.image_mask, base.config)), with_kwargs=True
    )
    lm.register_forward_pre_hook(partial(_open, mores), with_kwargs=True)
    for number in mores.numbers:
        lm.layers[number].register_forward_hook(partial(_edit, mores, number))
    return mores


def _tell(mores: Mores, image_mask: Any, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ids_BT = args[0] if args else kwargs.get("input_ids")
    if ids_BT is not None:
        mores.begin(image_mask(ids_BT))


def _open(mores: Mores, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    seen = kwargs.get("inputs_embeds")
    seen = seen if seen is not None else (args[0] if args else kwargs["input_ids"])
    cache = kwargs.get("past_key_values")
    mores.open(seen.shape[1], 0 if cache is None else int(cache.get_seq_length()))


def _edit(mores: Mores, number: int, _module: Any, _args: Any, output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return mores.edit(number, output)
    return mores.edit(number, output[0]), *output[1:]
