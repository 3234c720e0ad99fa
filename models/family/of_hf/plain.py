"""A family without a way of its own: squares of one size in, equally many tokens of each out, which stand in the text.

Pictures and their text come from Hugging Face's own processor, called with one picture; features from the model's own
`get_image_features`, tower and connector in one. What such a type is called stands in a table (`Kind`), one entry a type.
Axes: N squares (tiles), R image tokens.
"""

import copy
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn

from ....pool.encode import EncodeError
from ....pool.vision import Size
from ....store.arrays import Array
from ...protocol import Components, base_of
from .family import HFFamily, unlike
from .processor import FolderProcessor, known
from .reader import PIXELS, HFReader, as_bytes


@dataclass(frozen=True)
class Kind:
    """A `model_type`, what people call it, and the names of its classes in transformers: `model`, `processor`, `images`.

    `mark`: what the model's template writes for a picture; `token`: what features take the place of. `tokens`: how many a
    square has, by config. `squares`: of a usual picture; `fixed`: of any picture one. `tiny`: config, settings of the
    image processor and of processor_config.json, and names of special tokens, for a tiny model.
    """

    kind: str
    label: str
    model: str
    processor: str
    images: str
    mark: str
    token: str
    components: Components
    tokens: Callable[[Any], int]
    squares: int = 1
    fixed: bool = False
    tiny: dict[str, dict[str, Any]] = field(default_factory=dict)


class PlainReader(HFReader):
    """Has the processor's own class make pictures and their text."""

    def __init__(self, processor: FolderProcessor, image_mode: str, kind: Kind) -> None:
        """Make Hugging Face's processor. Raises InputError as `HFReader`."""
        self.mark, self.image = kind.mark, kind.token
        super().__init__(processor, image_mode, kind.label)
        self._kind, self._each = kind, threading.local()
        if kind.fixed:
            self.fixed = self.ids(None).count(self.image_id)

    @property
    def theirs(self) -> Any:
        """Hugging Face's processor of this thread: its tokenizer keeps settings of its last call."""
        if not hasattr(self._each, "theirs"):
            with self._alone:
                self._each.theirs = _processor(self._kind, self.processor, copy.deepcopy(self._own))
        return self._each.theirs

    def prepare(self, picture: Image.Image) -> dict[str, Array]:
        """Return squares, uint8 [N, 3, S, S]."""
        try:
            pixels = self._called(picture, do_rescale=False, do_normalize=False)[PIXELS]
        except ValueError as error:
            raise EncodeError(f"a picture of {picture.width} × {picture.height} pixels: {error}.") from error
        return {PIXELS: np.ascontiguousarray(as_bytes(pixels))}

    def _expansion(self, size: Size | None) -> tuple[int, ...]:
        """Return the ids of a black picture of a size: they depend on nothing else."""
        try:
            return tuple(map(int, self._called(Image.new("RGB", size or (32, 32)))["input_ids"][0]))
        except ValueError as error:
            raise EncodeError(f"a picture of {size and f'{size[0]} × {size[1]}'} pixels: {error}.") from error

    def _called(self, picture: Image.Image, **settings: Any) -> Any:
        words = {"add_special_tokens": False, "return_tensors": "np"}
        return self.theirs(images=[picture], text=[self.mark], **words, **settings)


class Plain(HFFamily):
    """The family of one entry, `entry`."""

    entry: ClassVar[Kind]

    def image_processor(self) -> Any:
        """Return the entry's."""
        import transformers

        return getattr(transformers, self.entry.images)

    def faults(self, config: Any, processor: FolderProcessor) -> list[str]:
        """Name image tokens, sides of squares and their numbers of tokens that differ."""
        token = known(processor.tokenizer, self.entry.token)
        faults = unlike({"image_token_id": (config.image_token_id, token)}, "the tokenizer")
        reader, side = PlainReader(processor, "pad", self.entry), config.vision_config.image_size
        shape, ids = reader.prepare(Image.new("RGB", (side, side)))[PIXELS].shape, reader.ids((side, side))
        faults += unlike({"image_size": (side, shape[2]), "image_size across": (side, shape[3])}, "the image processor")
        ours, theirs = self.entry.tokens(config), ids.count(reader.image_id) / shape[0]
        return faults + unlike({"an image size and patch size that give tokens:": (ours, theirs)}, "the processor")

    def tiny(self, out: str, texts: list[str]) -> str:
        """Write what the entry says, with a chat template of marks and texts."""
        import transformers

        from .tiny import drawn, words, write

        parts, end = self.entry.tiny, "<|im_end|>"
        marks = dict.fromkeys((self.entry.mark, self.entry.token, "<|im_start|>", *parts.get("marks", {})))
        tokenizer = words(texts, tuple(marks), end, parts.get("named"))
        text = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        text |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "initializer_range": 0.1}
        text |= {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48}
        vision |= {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
        config = transformers.AutoConfig.for_model(
            self.entry.kind,
            vision_config=vision,
            text_config=text | parts.get("text", {}),
            image_token_id=known(tokenizer, self.entry.token),
            **parts.get("config", {}),
        )
        settings = {"processor_class": self.entry.processor} | parts.get("processor", {})
        images = self.image_processor()(**parts["images"])
        processor = FolderProcessor(self.name, tokenizer, images, settings)
        return write(out, drawn(self.class_of(config)), config, processor, template(self.entry))

    def reader(self, processor: FolderProcessor, image_mode: str) -> PlainReader:
        """Return what calls the processor."""
        return PlainReader(processor, image_mode, self.entry)

    def vision(self, model: Any) -> list[nn.Module]:
        """Return tower and connector: both are run in one, so checkpoints share it where both are equal."""
        return [*super().vision(model), self.connector(model)]

    def see(self, model: Any, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the image tokens [R, H], by the model's own code."""
        features = base_of(model).model.get_image_features(pixel_values=media[PIXELS], return_dict=True)
        return features.pooler_output.flatten(0, 1)

    def connect(self, model: Any, seen: torch.Tensor, media: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return them as they are."""
        return seen

    def blank(self, config: Any) -> dict[str, torch.Tensor]:
        """Return one square of zeros."""
        side = config.vision_config.image_size
        return {PIXELS: torch.zeros(1, 3, side, side)}

    def pictures(self, config: Any, count: int) -> dict[str, torch.Tensor]:
        """Return the squares of usual pictures."""
        return super().pictures(config, count * self.entry.squares)


def family_of_kind(entry: Kind) -> type[Plain]:
    """Return the class of an entry's family."""
    told = {
        "entry": entry,
        "name": entry.kind,
        "kinds": (entry.kind,),
        "hf": entry.model,
        "components": entry.components,
    }
    label = f"{entry.label} ({entry.model})"
    return type(entry.model, (Plain,), told | {"label": label, "__doc__": f"`{entry.model}`.", "__module__": __name__})


def template(entry: Kind) -> str:
    """Return a chat template of plain turns for a tiny model."""
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
        "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        + entry.mark
        + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def _processor(kind: Kind, processor: FolderProcessor, tokenizer: Any) -> Any:
    """Return Hugging Face's processor with a folder's settings and a tokenizer."""
    import transformers

    theirs = getattr(transformers, kind.processor)
    taken = inspect.signature(theirs.__init__).parameters
    settings = {n: v for n, v in processor.settings.items() if n in taken and n not in ("image_processor", "tokenizer")}
    return theirs(image_processor=processor.image_processor, tokenizer=tokenizer, **settings)
