"""A record → token ids and label mask, segment by segment; no prefix is ever tokenised again.

The prompt is cut at special tokens (beginning, image, end of an answer), which are placed as ids; each stretch of text
between them is tokenised once, as LLaVA does, with special tokens in user text read as text. Labels come from character
offsets: a token is trained when it overlaps a trained segment. Source: spec LLaVA §2.2–§2.5. Axis: T tokens.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..store.errors import InputError, suggest
from .records import Record
from .templates import TEMPLATES, Segment

IGNORE = -100


@dataclass(frozen=True)
class Encoded:
    """`input_ids` and `labels` i64 [T]; the image placeholder stands once per image token; `image` is its path."""

    sample_id: int
    input_ids: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    image: str | None


class EncodeError(InputError):
    """A record that does not fit the model; the caller refuses it with `reason`."""

    reason = "not_encodable"


class Encoder:
    """Encodes records for one processor, template and length. `image_mode`: `pad` to a square, or `square` crop."""

    def __init__(
        self,
        processor: Any,
        template: str = "v1",
        max_len: int = 2048,
        image_mode: Literal["pad", "square"] = "pad",
    ) -> None:
        if template not in TEMPLATES:
            raise InputError(f"unknown conversation template {template!r}{suggest(template, TEMPLATES)}")
        self.tokenizer = processor.tokenizer
        if not getattr(self.tokenizer, "is_fast", False):
            raise InputError("label masks need a fast tokenizer (character offsets); this one is slow.")
        self.template, self.max_len, self.image_mode = TEMPLATES[template], max_len, image_mode
        self.images = processor.image_processor
        self.image_id = int(processor.image_token_id)
        self.image_tokens = count_image_tokens(processor)
        self._mean = np.array(self.images.image_mean, np.float32)
        self._std = np.array(self.images.image_std, np.float32)

    def encode(self, record: Record) -> Encoded:
        """Encode a whole conversation; cut on the right at `max_len`, image tokens included.

        A row whose labels are all -100 is returned as it is; callers decide what that means to them.

        Raises:
            EncodeError: the cut would fall before the end of the image.
        """
        has_image = record.image is not None
        segments = self.template.segments(record.conversations, has_image)
        ids, labels = self._tokenise(segments)
        if has_image:
            end = np.flatnonzero(ids == self.image_id)[-1] + 1
            if end > self.max_len:
                raise EncodeError(
                    f"record {record.sample_id}: its image ends at token {end}, max_len is {self.max_len}."
                )
        return Encoded(record.sample_id, ids[: self.max_len], labels[: self.max_len], record.image)

    def prompt(self, record: Record) -> Encoded:
        """Encode the first question up to where its answer begins; no labels.

        Raises:
            EncodeError: the prompt is longer than `max_len`.
        """
        ids, labels = self._tokenise(self.template.prompt(record.conversations, record.image is not None))
        if len(ids) > self.max_len:
            raise EncodeError(
                f"record {record.sample_id}: the prompt has {len(ids)} tokens, max_len is {self.max_len}."
            )
        return Encoded(record.sample_id, ids, labels, record.image)

    def pixels(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """Return the normalised picture, float32 [3, H, W]."""
        return self.normalise(torch.from_numpy(self.pixels_u8(picture)[None]))[0].numpy()

    def pixels_u8(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """Return the resized and cropped picture before normalisation, uint8 [3, H, W]: a quarter of the bytes."""
        done = self.images.preprocess(
            picture,
            do_rescale=False,
            do_normalize=False,
            do_pad=self.image_mode == "pad",
            return_tensors="np",
        )["pixel_values"][0]
        return np.clip(np.rint(np.asarray(done)), 0, 255).astype(np.uint8)

    def normalise(self, u8: torch.Tensor) -> torch.Tensor:
        """Scale and normalise uint8 [I, 3, H, W] on its own device; float32."""
        mean = torch.from_numpy(self._mean).to(u8.device)[:, None, None]
        std = torch.from_numpy(self._std).to(u8.device)[:, None, None]
        return (u8.float() * float(self.images.rescale_factor) - mean) / std

    def recipe(self) -> dict[str, Any]:
        """Return what the numbers depend on, for feature keys."""
        return {"template": self.template.name, "max_len": self.max_len, "image_mode": self.image_mode}

    def _tokenise(self, segments: list[Segment]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        ids: list[int] = []
        trained: list[bool] = []
        if self.tokenizer.bos_token_id is not None:
            ids, trained = [self.tokenizer.bos_token_id], [False]
        waiting: list[Segment] = []
        for segment in [*segments, None]:
            if segment is not None and segment.kind == "text":
                waiting.append(segment)
                continue
            self._text(waiting, ids, trained)
            waiting = []
            if segment is not None:
                special = [self.image_id] * self.image_tokens if segment.kind == "image" else [self._eos()]
                ids += special
                trained += [segment.trained] * len(special)
        ids_T = np.array(ids, np.int64)
        return ids_T, np.where(np.array(trained, bool), ids_T, IGNORE)

    def _text(self, segments: list[Segment], ids: list[int], trained: list[bool]) -> None:
        text = "".join(s.text for s in segments)
        if not text:
            return
        mask = np.concatenate([np.full(len(s.text), s.trained) for s in segments])
        done = self.tokenizer(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )
        ids += done["input_ids"]
        for begin, end in done["offset_mapping"]:
            # a token without characters of its own (a prefix space) belongs to the character that follows
            trained.append(bool(mask[begin : max(end, begin + 1)].any()))

    def _eos(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end-of-text token, so answers could not end.")
        return int(self.tokenizer.eos_token_id)


def count_image_tokens(processor: Any) -> int:
    """Return how many image tokens one picture becomes, as `LlavaProcessor` counts (576 for CLIP-L/14 at 336)."""
    crop = processor.image_processor.crop_size
    side = [crop["height"], crop["width"]] if not hasattr(crop, "height") else [crop.height, crop.width]
    tokens = (side[0] // processor.patch_size) * (side[1] // processor.patch_size)
    tokens += processor.num_additional_image_tokens or 0
    return tokens - 1 if processor.vision_feature_select_strategy == "default" else tokens
