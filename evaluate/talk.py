"""Talking with one model: which checkpoint, in what precision, and a conversation that grows turn by turn."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from pydantic import Field

from ..models.encoding import default_template
from ..models.load import load
from ..pool.images import load_image
from ..pool.inputs import InputConfig
from ..store.errors import InputError
from ..store.reading import check_path
from .generator import Generator, Reply, Turn
from .sampling import Sampling
from .text_stream import TextStream

MARK = "<image>"


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
    def fitting(cls, model: str, values: dict[str, object]) -> "TalkConfig":
        """Return the config of a model, with the template that goes with it unless `values` name one.

        Raises:
            InputError: no checkpoint there, or a value that does not fit.
        """
        check_path(model)
        return cls.parse({"model": model, "template": default_template(model)} | values)


def open_generator(config: TalkConfig) -> Generator:
    """Return the generator of a model, on its device.

    Raises:
        InputError: no such checkpoint or device, or damaged files.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {config.device!r}: there is no GPU that PyTorch can use here.")
    precision = config.precision if config.precision != "auto" else "float32" if device == "cpu" else "bfloat16"
    return Generator(load(config.model, precision, device, quantise=config.quantise), config)


class Conversation:
    """Turns and pictures of one talk. A picture goes with the next thing that is said."""

    def __init__(self, generator: Generator, sampling: Sampling, system: str = "") -> None:
        self.generator, self.sampling, self.system = generator, sampling, system
        self.turns: list[Turn] = []
        self.images: list[Image.Image] = []
        self._waiting = 0

    def show(self, path: str) -> None:
        """Take a picture's file.

        Raises:
            InputError: it is not there, or no picture that may be opened.
        """
        # the file that a user names is its own root: a link is followed, as by any program
        file = Path(path).expanduser().resolve()
        self.images.append(load_image(str(file.parent), file.name, pictures=self.generator.encoder.pictures))
        self._waiting += 1

    def reset(self) -> None:
        """Forget all turns and pictures."""
        self.turns, self.images, self._waiting = [], [], 0

    def say(self, text: str, hear: Callable[[str], None] = lambda piece: None) -> Reply:
        """Return the answer; `hear` is told of its text in pieces. A turn that cannot be asked is not kept.

        Raises:
            EncodeError: the conversation is longer than `max_len`, or the text has marks of pictures that are not there.
        """
        asked = Turn("human", f"{MARK}\n" * self._waiting + text)
        prompt = self.generator.encode([*self.turns, asked], self.images, self.system)
        stream = TextStream(self.generator.text, self.sampling.stop)

        def watch(_row: int, token: int) -> bool:
            hear(stream.push(token))
            return True

        (reply,) = self.generator.reply([prompt], [self.sampling], watch)
        hear(stream.close())
        self.turns += [asked, Turn("gpt", reply.text)]
        self._waiting = 0
        return reply
