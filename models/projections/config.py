"""How per-sample gradients become vectors of a fixed width."""

from typing import Any, Literal

from pydantic import Field, model_validator

from ...store.config import Config

Kind = Literal["rademacher", "sjlt", "kron", "none"]


class ProjectionConfig(Config):
    """A random projection; E⟨Pg, Ph⟩ = ⟨g, h⟩ for each kind."""

    kind: Kind = Field(
        "rademacher",
        description="rademacher: dense ±1/√dim (LESS, TRAK). sjlt: sparse Johnson–Lindenstrauss. kron: ±1 on both "
        "sides of each weight matrix (LoGra), without forming the gradient; needs mode sgd. none: all "
        "elements side by side (tests).",
    )
    dim: int = Field(8192, ge=32, multiple_of=32, description="Columns.")
    seed: int = Field(0, ge=0, description="Decides the signs.")
    nonzeros: int = Field(
        2, ge=1, le=64, description="sjlt's entries ±1/√nonzeros an element, in one pass over the gradient."
    )

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
