"""A record → token ids and label mask, segment by segment; no prefix is ever tokenised again.

The prompt is cut at special tokens (beginning, image, end of an answer), which are placed as ids; each
stretch of text between them is tokenised once, as LLaVA does, with special tokens in user text read as text.
Labels come from character offsets: a token is trained when it overlaps a trained segment. Source: spec LLaVA
§2.2–§2.5. Axis: T tokens.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..store.errors import InputError, suggest
from .images import load_image
from .long_pad import crop_and_resize, is_long, is_sliver, pad_and_resize
from .records import Record
from .shown import PICTURES, Pictures
from .stretches import Stretches
from .templates import TEMPLATES, Segment

IGNORE = -100
# ids of a stretch of the row, and which of them are trained
Piece = tuple[list[int], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Encoded:
    """`input_ids`, `labels` i64 [T]; the image token stands `image_tokens` times for each of `images`.

    `cut`: how many trained tokens lie behind `max_len`.
    """

    sample_id: int
    input_ids: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    images: tuple[str, ...]
    cut: int = 0


class EncodeError(InputError):
    """A record that does not fit the model; the caller refuses it with `reason` (one of `checks.REASONS`)."""

    reason = "not_encodable"


class Encoder:
    """Encodes records for one processor, template and length (in tokens, image tokens included).

    `image_mode`: `pad` to a square with the mean colour (LLaVA 1.5), or `square`, the processor's own resize
    and centre crop (LLaVA's stage 1). `pictures`: how a file becomes RGB (`shown.py`). `image_tokens`: how many
    tokens one picture becomes.
    """

    def __init__(
        self,
        processor: Any,
        template: str = "v1",
        max_len: int = 2048,
        image_mode: Literal["pad", "square"] = "pad",
        pictures: Pictures = "white",
    ) -> None:
        """Check that the processor can do all this.

        Raises:
            InputError: unknown template or image mode, a tokenizer without the template's special tokens, or a
                processor that would encode wrongly without a word.
        """
        if template not in TEMPLATES:
            raise InputError(f"unknown conversation template {template!r}{suggest(template, TEMPLATES)}")
        if image_mode not in ("pad", "square"):
            raise InputError(f"unknown image mode {image_mode!r}{suggest(image_mode, ('pad', 'square'))}")
        self.tokenizer = processor.tokenizer
        if pictures not in PICTURES:
            raise InputError(f"unknown way to show pictures {pictures!r}{suggest(pictures, PICTURES)}")
        self.template, self.max_len, self.image_mode = TEMPLATES[template], max_len, image_mode
        self.pictures: Pictures = pictures
        self.images = processor.image_processor
        if image_mode == "pad" and not hasattr(self.images, "pad_to_square"):
            raise InputError(
                f"{type(self.images).__name__} cannot pad to a square; use LlavaImageProcessorPil, "
                "or image mode 'square'."
            )
        self.image_id = int(processor.image_token_id)
        self.image_tokens = count_image_tokens(processor)
        self._mean = torch.tensor(self.images.image_mean, dtype=torch.float32)
        self._std = torch.tensor(self.images.image_std, dtype=torch.float32)
        _check_tokenizer(self.tokenizer, processor.image_token, self.image_id)
        self._stretches = Stretches(self.tokenizer)
        self._tokens = {token: _single_id(self.tokenizer, token, template) for token in self.template.tokens}

    def encode(self, record: Record) -> Encoded:
        """Encode a whole conversation; cut on the right at `max_len`, image tokens included.

        A row whose labels are all -100 (its answers are empty, or cut off) is returned as it is; callers
        decide what that means to them.

        Raises:
            EncodeError: the cut would fall before the end of the last image, or the template is not made for
                this record.
        """
        try:
            template = self.template.with_system(record.system)
            segments = template.segments(record.conversations, bool(record.images))
        except InputError as error:
            raise EncodeError(f"record {record.sample_id}: {error}") from error
        ids_T, labels_T = self._tokenise(record, segments)
        if record.images:
            end = int(np.flatnonzero(ids_T == self.image_id)[-1]) + 1
            if end > self.max_len:
                raise EncodeError(
                    f"record {record.sample_id}: its last image ends at token {end}, max_len is {self.max_len}."
                )
        cut = int((labels_T[self.max_len :] != IGNORE).sum())
        return Encoded(record.sample_id, ids_T[: self.max_len], labels_T[: self.max_len], record.images, cut)

    def prompt(self, record: Record, mark_question: bool = False) -> Encoded:
        """Encode the first question up to where its answer begins; all labels are -100.

        With `mark_question`, tokens that hold the question's own text keep their ids as labels: not the template's words,
        not the pictures, and not white space at either end of a stretch (the line break behind `<image>`).
        Of several pictures it is given those whose marks stand in this question: the first ones.

        Raises:
            EncodeError: the prompt is longer than `max_len`.
        """
        try:
            segments = self.template.with_system(record.system).prompt(record.conversations, bool(record.images))
        except InputError as error:
            raise EncodeError(f"record {record.sample_id}: {error}") from error
        if mark_question:
            segments = [part for segment in segments for part in _marked(segment)]
        shown = sum(s.kind == "image" for s in segments)
        if 0 < shown < len(record.images):
            record = replace(record, images=record.images[:shown])
        ids_T, labels_T = self._tokenise(record, segments)
        if len(ids_T) > self.max_len:
            raise EncodeError(
                f"record {record.sample_id}: the prompt has {len(ids_T)} tokens, max_len is {self.max_len}."
            )
        return Encoded(record.sample_id, ids_T, labels_T, record.images)

    def load(self, root: str | None, image: str, seen: int | None = None) -> np.ndarray[Any, Any]:
        """Return a picture of an image root as `pixels_u8`; `seen`: `Record.seen`; raises what `load_image` does."""
        return self.pixels_u8(load_image(root, image, pictures=self.pictures, seen=seen))

    def pixels(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """Return the normalised picture, float32 [3, H, W]."""
        return self.normalise(torch.from_numpy(self.pixels_u8(picture)[None]))[0].numpy()

    def pixels_u8(self, picture: Image.Image) -> np.ndarray[Any, Any]:
        """Return the resized and cropped picture, uint8 [3, H, W]: a quarter of the bytes."""
        if (side := self._side()) and picture.size == (side, side) and picture.mode == "RGB":
            return np.array(picture).transpose(2, 0, 1)  # as it is
        if self.image_mode == "pad" and is_long(picture.size) and (side := self._side()):
            colour = [int(x * 255) for x in self.images.image_mean]
            return pad_and_resize(picture, side, (colour[0], colour[1], colour[2])).transpose(2, 0, 1)
        if self.image_mode == "square" and (side := self._side()) and is_sliver(picture.size, side):
            return crop_and_resize(picture, side).transpose(2, 0, 1)
        done = self.images.preprocess(
            picture,
            do_rescale=False,
            do_normalize=False,
            do_pad=self.image_mode == "pad",
            return_tensors="np",
        )["pixel_values"][0]
        return np.clip(np.rint(np.asarray(done)), 0, 255).astype(np.uint8)

    def _side(self) -> int | None:
        """Return the processor's side if it only resizes a square, bicubic, to what it then crops; None if it does else."""
        size, crop = self.images.size, self.images.crop_size
        sides = {size[k] for k in ("shortest_edge", "height", "width") if size[k]} | {crop["height"], crop["width"]}
        plain = self.images.do_resize and self.images.do_center_crop and int(self.images.resample) == 3
        return sides.pop() if plain and len(sides) == 1 else None

    def normalise(self, u8_I3HW: torch.Tensor) -> torch.Tensor:
        """Scale and normalise uint8 [I, 3, H, W] on its own device; f32, equal to the processor's."""
        mean, std = (v.to(u8_I3HW.device)[:, None, None] for v in (self._mean, self._std))
        return (u8_I3HW.float() * float(self.images.rescale_factor) - mean) / std

    @property
    def end_id(self) -> int | None:
        """The id that ends an answer, for generation; None where the tokenizer has no end."""
        end = self.template.end
        return self._tokens[end.text] if end.kind == "token" else self.tokenizer.eos_token_id

    def recipe(self) -> dict[str, Any]:
        """Return what the numbers depend on, for feature keys."""
        return {
            "template": self.template.name,
            "max_len": self.max_len,
            "image_mode": self.image_mode,
            "pictures": self.pictures,
        }

    def _tokenise(self, record: Record, segments: list[Segment]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Return ids and labels, i64 [T] both."""
        marks = [i for i, s in enumerate(segments) if s.kind != "text"]
        shown, pictures = sum(segments[i].kind == "image" for i in marks), len(record.images)
        if shown != pictures:
            raise EncodeError(
                f"record {record.sample_id}: each picture needs exactly one <image> in its questions; "
                f"pictures: {pictures}, marks: {shown}."
            )
        starts, ends = [0, *(i + 1 for i in marks)], [*marks, len(segments)]
        behind = [False, *(segments[i].kind != "image" for i in marks)]
        texts = iter(self._texts([segments[a:b] for a, b in zip(starts, ends, strict=True)], behind))
        bos = self.tokenizer.bos_token_id if self.template.bos else None
        if self.template.name == "plain" and bos == self.tokenizer.eos_token_id:
            bos = None  # one mark for everything (phi, GPT-2): their tokenizers place none in front
        pieces: list[Piece] = [] if bos is None else [([bos], np.zeros(1, bool))]
        pieces.append(next(texts))
        for mark, text in zip((segments[i] for i in marks), texts, strict=True):
            special = self._special(mark)
            pieces += [(special, np.full(len(special), mark.trained)), text]
        ids_T = np.concatenate([np.array(ids, np.int64) for ids, _ in pieces])
        trained_T = np.concatenate([trained for _, trained in pieces])
        return ids_T, np.where(trained_T, ids_T, IGNORE)

    def _texts(self, chunks: list[list[Segment]], behind_token: list[bool]) -> list[Piece]:
        """Tokenise each stretch between marks once, as a whole; say of each token whether it is trained."""
        texts = ["".join(s.text for s in chunk) for chunk in chunks]
        out: list[Piece] = [([], np.zeros(0, bool))] * len(chunks)
        for i, (ids, offsets) in enumerate(self._stretches.tokens(texts, behind_token)):
            if not ids:
                continue
            # trained characters before each place: a token is trained when the count grows inside it
            before = np.cumsum(np.repeat([0, *(s.trained for s in chunks[i])], [1, *map(_length, chunks[i])]))
            begin, end = np.array(offsets, np.int64).reshape(-1, 2).T
            # a token without characters of its own (a trimmed space) belongs to the one that follows, or the last
            begin = np.minimum(begin, len(texts[i]) - 1)
            end = np.maximum(end, begin + 1)
            out[i] = (ids, before[end] > before[begin])
        return out

    def _special(self, mark: Segment) -> list[int]:
        if mark.kind == "image":
            return [self.image_id] * self.image_tokens
        if mark.kind == "token":
            return [self._tokens[mark.text]]
        if self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end-of-text token, so answers could not end.")
        return [int(self.tokenizer.eos_token_id)]


def count_image_tokens(processor: Any) -> int:
    """Return how many image tokens one picture becomes, as `LlavaProcessor` counts (576 for CLIP-L/14 at
    336). A connector with queries is told by a negative number of additional tokens.

    Raises:
        InputError: the processor's config lacks what the count needs, or would count one token too few (spec:
            LLaVA §9).
    """
    crop, patch = processor.image_processor.crop_size, processor.patch_size
    if not patch or not crop:
        raise InputError("the processor lacks patch_size or crop_size, so image tokens cannot be counted.")
    tokens = (crop["height"] // patch) * (crop["width"] // patch)
    extra = processor.num_additional_image_tokens or 0
    if processor.vision_feature_select_strategy != "default":
        if tokens + extra < 1:
            raise InputError(
                f"the processor counts {tokens} patches and {extra} additional tokens a picture, which leaves none: "
                "num_additional_image_tokens in processor_config.json is wrong."
            )
        return tokens + extra
    if extra < 1:
        # "default" drops a class token; Hugging Face's own default of 0 such tokens fails only inside the
        # model
        raise InputError(
            "the processor drops a class token (strategy 'default') but counts none: "
            "set num_additional_image_tokens to 1 in processor_config.json."
        )
    return tokens + extra - 1


def _marked(segment: Segment) -> list[Segment]:
    """Cut white space off a question's ends; its text alone is marked. Tokens do not change: stretches are whole."""
    if not segment.asked:
        return [segment]
    core = segment.text.strip()
    before, after = segment.text.split(core, 1) if core else (segment.text, "")
    parts = (replace(segment, text=before), replace(segment, text=core, trained=True), replace(segment, text=after))
    return [p for p in parts if p.text]


def _length(segment: Segment) -> int:
    return len(segment.text)


def _check_tokenizer(tokenizer: Any, image_token: str, image_id: int) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise InputError("label masks need a fast tokenizer (character offsets); this one is slow.")
    if tokenizer.convert_ids_to_tokens(image_id) != image_token:
        raise InputError(f"the tokenizer does not know the image token {image_token!r}; add it as a special token.")
    for token in filter(None, (image_token, tokenizer.eos_token, tokenizer.bos_token)):
        _check_literal(tokenizer, token)


def _check_literal(tokenizer: Any, token: str) -> None:
    ids = tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if tokenizer.convert_tokens_to_ids(token) in ids:
        raise InputError(
            f"a literal {token!r} in a text would become the special token: mark it as special in tokenizer.json."
        )


def _single_id(tokenizer: Any, token: str, template: str) -> int:
    """Return the id of a special token that a template places."""
    found = tokenizer.convert_tokens_to_ids(token)
    # an unknown token gives the id of <unk>, or None
    if found is None or tokenizer.convert_ids_to_tokens(found) != token:
        raise InputError(
            f"conversation template {template!r} places {token!r}, which this tokenizer does not know as one token: take "
            "the template that its language model was made with."
        )
    _check_literal(tokenizer, token)
    return int(found)
