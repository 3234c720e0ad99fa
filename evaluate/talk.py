"""Talking with one model: a conversation that grows turn by turn."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from ..models.load import load
from ..pool.images import load_image
from ..pool.refusals import IMAGE
from ..store.errors import InputError
from .generator import Generator, Reply, Turn
from .sampling import Sampling
from .talk_config import TalkConfig as TalkConfig
from .text_stream import TextStream


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
        # files whose pictures go with what is said next
        self.waiting: list[str] = []

    def show(self, path: str) -> None:
        """Take a picture's file.

        Raises:
            InputError: it is not there, or no picture that may be opened.
        """
        # the file that a user names is its own root: a link is followed, as by any program
        file = Path(path).expanduser().resolve()
        self.images.append(load_image(str(file.parent), file.name, pictures=self.generator.encoder.pictures))
        self.waiting.append(path)

    def reset(self) -> None:
        """Forget all turns and pictures."""
        self.turns, self.images, self.waiting = [], [], []

    def say(self, text: str, hear: Callable[[str], None] = lambda piece: None) -> Reply:
        """Return the answer; `hear` is told of its text in pieces. A turn that cannot be asked is not kept.

        Raises:
            EncodeError: the conversation is longer than `max_len`, or the text has marks of pictures that are not there.
        """
        asked = Turn("human", f"{IMAGE}\n" * len(self.waiting) + text)
        prompt = self.generator.encode([*self.turns, asked], self.images, self.system)
        stream = TextStream(self.generator.text, self.sampling.stop)

        def watch(_row: int, token: int) -> bool:
            hear(stream.push(token))
            return True

        (reply,) = self.generator.reply([prompt], [self.sampling], watch)
        hear(stream.close())
        self.turns += [asked, Turn("gpt", reply.text)]
        self.waiting = []
        return reply
