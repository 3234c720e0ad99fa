"""How per-sample gradients become vectors of a fixed width."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ...store.config import Config

Kind = Literal["rademacher", "sjlt", "kron", "none"]


class ProjectionConfig(Config):
    """A random projection of `dim` columns, made from `seed`; E⟨Pg, Ph⟩ = ⟨g, h⟩ for each kind.

    `rademacher`: dense ±1/√dim (LESS, TRAK). `sjlt`: sparse Johnson–Lindenstrauss, `nonzeros` entries ±1/√nonzeros an
    element: one pass over the gradient. `kron`: ±1 on both sides of each weight matrix (LoGra), never forming the
    gradient; needs a gradient that is linear in the loss (mode `sgd`). `none`: all elements side by side (tests).
    """

    kind: Kind = "rademacher"
    dim: int = Field(8192, ge=32, multiple_of=32)
    seed: int = Field(0, ge=0)
    nonzeros: int = Field(2, ge=1, le=64)

    @model_validator(mode="after")
    def _fits(self) -> "ProjectionConfig":
        width = self.dim // self.nonzeros
        if self.kind == "sjlt" and (self.dim % self.nonzeros or width < 32 or width & (width - 1)):
            raise ValueError(
                f"sjlt needs dim / nonzeros to be a power of two of at least 32, not {self.dim} / {self.nonzeros}: "
                "take dim 8192 and nonzeros 1, 2 or 4."
            )
        return self

    def facts(self) -> dict[str, Any]:
        """Return what the matrix depends on, for feature keys; `hash` is the version of `signs.py`."""
        facts: dict[str, Any] = {"kind": self.kind, "dim": self.dim, "seed": self.seed, "hash": 2}
        return facts | ({"nonzeros": self.nonzeros} if self.kind == "sjlt" else {})
