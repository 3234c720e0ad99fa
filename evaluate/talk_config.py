"""Which model is talked with, in what precision and where: what `chat` and `serve` share."""

from typing import Literal, Self

from pydantic import Field

from ..pool.inputs import InputConfig
from ..store.reading import check_path


class TalkConfig(InputConfig):
    """A model to talk with."""

    model: str = Field(description="The checkpoint: a whole model, an adapter, MoReS or trained weights on their base.")
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "auto", description="What it computes in; auto is bfloat16 on a GPU, float32 on a CPU."
    )
    quantise: Literal["nf4"] | None = Field(
        None, description="nf4 holds the decoder's weights in 4 bits (bitsandbytes)."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1, …; auto is a GPU where there is one.")

    @classmethod
    def fitting(cls, model: str, values: dict[str, object]) -> Self:
        """Return the config of a model, with the template that goes with it unless `values` name one.

        Raises:
            InputError: no checkpoint there, or a value that does not fit.
        """
        # torch comes with it, which a page of configs needs not
        from ..models.encoding import default_template

        check_path(model)
        return cls.parse({"model": model, "template": default_template(model)} | values)
