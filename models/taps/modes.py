"""Maths modes: what is made of a parameter's per-sample gradients before they are projected.

`sgd`: the gradient. `sign`: its sign. `less_adam`: LESS's update, exactly as its code computes it. `adam`: the update that
Adam itself would do next. Both are elementwise, so they stream parameter by parameter. Source: spec LESS §1.2.
Axes: B samples, P elements of one parameter.
"""

from typing import Any, Literal, Protocol

import torch

from ...store.errors import InputError
from ..moments import Moments
from ..specs import Mode

# LESS's constants, whatever the checkpoint's optimizer used
LESS_BETAS, LESS_EPS = (0.9, 0.999), 1e-8
BLOCK = 1 << 26  # elements worked on at a time: 256 MB in float32 for each of about three temporaries


class Transform(Protocol):
    """Elementwise maths on one parameter's per-sample gradients, and what it counted."""

    def __call__(self, name: str, grads_BP: torch.Tensor) -> torch.Tensor:
        """Return [B, P] in the dtype given; `name` is the parameter's canonical name."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what was counted so far."""
        ...


def make_transform(mode: Mode, moments: Moments | None) -> Transform:
    """Return a mode's transform; the Adam modes read `moments` of the checkpoint that the gradients are taken at.

    Raises:
        InputError: an Adam mode without moments.
    """
    if mode == "sgd" or mode == "sign":
        return _Plain(mode)
    if moments is None:
        raise InputError(
            f"mode {mode!r} needs Adam's moments of the checkpoint. Train it with save_moments: true, name its optimizer "
            "file, or use mode sgd or sign."
        )
    return _Adam(moments, as_published=mode == "less_adam")


class _Plain:
    """The gradient itself, or its sign."""

    def __init__(self, mode: Literal["sgd", "sign"]) -> None:
        self._sign = mode == "sign"

    def __call__(self, name: str, grads_BP: torch.Tensor) -> torch.Tensor:
        return torch.sign(grads_BP) if self._sign else grads_BP

    def facts(self) -> dict[str, Any]:
        return {}


class _Adam:
    """Γ = M / √Vv with M = β₁m + (1−β₁)g and Vv = β₂v + (1−β₂)g²; m and v are the checkpoint's and stay as they are.

    `as_published` (LESS): √(Vv + eps), no bias correction, LESS's own constants. LESS rounds g and g² to bfloat16; here all
    is float32 (float64 for float64 gradients). Otherwise (Adam): M and Vv bias-corrected for the step that would come
    next, √Vv + eps, with the checkpoint's betas and eps.
    A row without a gradient gets the momentum alone, which is not zero: a sample is described by the update after it.
    """

    def __init__(self, moments: Moments, as_published: bool) -> None:
        self._moments, self._as_published = moments, as_published
        self._betas = LESS_BETAS if as_published else moments.betas
        self._eps = LESS_EPS if as_published else moments.eps
        self._held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._below: dict[torch.device, torch.Tensor] = {}
        self._seen = 0

    def __call__(self, name: str, grads_BP: torch.Tensor) -> torch.Tensor:
        m_P, v_P = self._on_device(name, grads_BP)
        rows, count = grads_BP.shape
        columns = max(1, BLOCK // max(1, rows))
        if columns >= count:
            out_BP = self._block(name, grads_BP, m_P, v_P).to(grads_BP.dtype)
        else:
            # blocks of columns, so that each moment is read once
            out_BP = torch.empty_like(grads_BP)
            for first in range(0, count, columns):
                part = slice(first, first + columns)
                out_BP[:, part] = self._block(name, grads_BP[:, part], m_P[part], v_P[part])
        self._seen += grads_BP.numel()
        return out_BP

    def facts(self) -> dict[str, Any]:
        """Return the entries seen and the share of them with Vv < eps; this waits for the device.

        Where Vv is below eps, LESS's denominator is a constant and its update no longer Adam's (spec LESS §1.2).
        """
        below = sum(int(b) for b in self._below.values())
        return {"entries": self._seen, "below_eps": below / max(1, self._seen)}

    def _block(self, name: str, grads_BP: torch.Tensor, m_P: torch.Tensor, v_P: torch.Tensor) -> torch.Tensor:
        b1, b2 = self._betas
        grads_BP = grads_BP.to(m_P.dtype)
        # each product is a new tensor, so what follows may be in place
        vv_BP = grads_BP.square().mul_(1 - b2).add_(v_P * b2)
        self._below[m_P.device] += (vv_BP < self._eps).sum()
        m_BP = (grads_BP * (1 - b1)).add_(m_P * b1)
        if self._as_published:
            return m_BP.div_(vv_BP.add_(self._eps).sqrt_())
        step = self._moments.own_steps.get(name, self._moments.step) + 1
        vv_BP.div_(1 - b2**step).sqrt_().add_(self._eps)
        return m_BP.div_(1 - b1**step).div_(vv_BP)

    def _on_device(self, name: str, grads_BP: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a parameter's moments [P] where its gradients are, moved at first sight and then kept."""
        wide = torch.promote_types(grads_BP.dtype, torch.float32)
        held = self._held.get(name)
        if held is None or held[0].device != grads_BP.device or held[0].dtype != wide:
            held = self._held[name] = self._moved(name, grads_BP, wide)
        return held

    def _moved(self, name: str, grads_BP: torch.Tensor, wide: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        m, v = self._moments.exp_avg.get(name), self._moments.exp_avg_sq.get(name)
        if m is None or v is None:
            raise InputError(
                f"the moments lack {name!r}: load them for all tapped parameters, or use mode sgd or sign."
            )
        if m.numel() != grads_BP.shape[1]:
            raise InputError(
                f"the moments of {name!r} have {m.numel()} elements, its gradients {grads_BP.shape[1]}: load those of the "
                "checkpoint that the gradients are taken at."
            )
        self._below.setdefault(grads_BP.device, torch.zeros((), dtype=torch.int64, device=grads_BP.device))
        return m.flatten().to(grads_BP.device, wide), v.flatten().to(grads_BP.device, wide)
