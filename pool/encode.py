"""A record → token ids and label mask, segment by segment; no prefix is ever tokenised again.

The prompt is cut at special tokens (beginning, image, end of an answer), which are placed as ids; each
stretch of text between them is tokenised once, as LLaVA does, with special tokens in user text read as text.
Labels come from character offsets: a token is trained when it overlaps a trained segment. Source: spec LLaVA
§2.2–§2.5. Axis: T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..store.arrays import Array
from ..store.errors import InputError, suggest
from .images import load_image
from .own_template import OwnTemplate
from .records import Record
from .shown import PICTURES, Pictures
from .stretches import Stretches
from .templates import NAMES, OWN, TEMPLATES, Segment
from .vision import Media, PictureReader, Size

IGNORE = -100
# ids of a stretch of the row, and which of them are trained
Piece = tuple[list[int], Array]


@dataclass(frozen=True)
class Encoded:
    """`input_ids`, `labels` i64 [T]; image tokens stand for each of `images`, as many as its features.

    `cut`: how many trained tokens lie behind `max_len`. `media`: each picture as its model takes it, once it is decoded.
    """

    sample_id: int
    input_ids: Array
    labels: Array
    images: tuple[str, ...]
    cut: int = 0
    media: tuple[Media, ...] = ()

    def showing(self, media: Sequence[Media]) -> "Encoded":
        """Return the row with its pictures."""
        return replace(self, media=tuple(media))

    @property
    def nbytes(self) -> int:
        """The bytes that it takes in memory."""
        return 2 * self.input_ids.nbytes + sum(array.nbytes for one in self.media for array in one.values())


class EncodeError(InputError):
    """A record that does not fit the model; the caller refuses it with `reason` (one of `checks.REASONS`)."""

    reason = "not_encodable"


class CutPictureError(EncodeError):
    """A record whose last picture ends behind `max_len`."""


class Encoder:
    """Encodes records for one reader of pictures, template and length (in tokens, image tokens included).

    `pictures`: how a file becomes RGB (`shown.py`). `reader`: the family's word on pictures (`models/encoding.py` finds
    it).
    """

    def __init__(
        self, reader: PictureReader, template: str = "v1", max_len: int = 2048, pictures: Pictures = "white"
    ) -> None:
        """Check that the tokenizer can do all this.

        Raises:
            InputError: unknown template or way to show pictures, or a tokenizer without the template's special tokens.
        """
        if template not in NAMES:
            raise InputError(f"unknown conversation template {template!r}{suggest(template, NAMES)}")
        if pictures not in PICTURES:
            raise InputError(f"unknown way to show pictures {pictures!r}{suggest(pictures, PICTURES)}")
        self.reader, self.tokenizer, self.image_id = reader, reader.tokenizer, reader.image_id
        self.max_len, self.pictures = max_len, pictures
        _check_tokenizer(self.tokenizer, self.image_id)
        self.template = OwnTemplate(self.tokenizer, reader.mark) if template == OWN else TEMPLATES[template]
        self._stretches = Stretches(self.tokenizer, as_sentencepiece=template != OWN)
        self._tokens = {token: _single_id(self.tokenizer, token, template) for token in self.template.tokens}

    def encode(self, record: Record, sizes: Sequence[Size] | None = None) -> Encoded:
        """Encode a whole conversation; cut on the right at `max_len`, image tokens included.

        A row whose labels are all -100 (its answers are empty, or cut off) is returned as it is; callers
        decide what that means to them. `sizes`: its pictures', where the number of their tokens depends on them.

        Raises:
            EncodeError: the cut would fall before the end of the last image, or the template is not made for
                this record.
        """
        try:
            template = self.template.with_system(record.system)
            segments = template.segments(record.conversations, bool(record.images))
        except InputError as error:
            raise EncodeError(f"record {record.sample_id}: {error}") from error
        ids_T, labels_T = self._tokenise(record, segments, sizes, len(record.images))
        if record.images:
            end = int(np.flatnonzero(ids_T == self.image_id)[-1]) + 1
            if end > self.max_len:
                raise CutPictureError(
                    f"record {record.sample_id}: its last image ends at token {end}, max_len is {self.max_len}."
                )
        cut = int((labels_T[self.max_len :] != IGNORE).sum())
        return Encoded(record.sample_id, ids_T[: self.max_len], labels_T[: self.max_len], record.images, cut)

    def prompt(
        self, record: Record, mark_question: bool = False, sizes: Sequence[Size] | None = None, answers: int = 0
    ) -> Encoded:
        """Encode a conversation up to where an answer begins: the first, or the one behind `answers` of its history.

        All labels are -100. With `mark_question`, tokens that hold a question's own text keep their ids as labels: not the
        template's words, not the pictures, and not white space at either end of a stretch (the line break behind
        `<image>`). Of several pictures it is given those whose marks stand in these questions: the first ones.

        Raises:
            EncodeError: the prompt is longer than `max_len`, or the record has no such answer.
        """
        try:
            template = self.template.with_system(record.system)
            segments = template.prompt(record.conversations, bool(record.images), answers)
        except InputError as error:
            raise EncodeError(f"record {record.sample_id}: {error}") from error
        if mark_question:
            segments = [part for segment in segments for part in _marked(segment)]
        shown, among = sum(s.kind == "image" for s in segments), len(record.images)
        if 0 < shown < len(record.images):
            record = replace(record, images=record.images[:shown])
        ids_T, labels_T = self._tokenise(record, segments, sizes and sizes[:shown], among)
        if len(ids_T) > self.max_len:
            raise EncodeError(
                f"record {record.sample_id}: the prompt has {len(ids_T)} tokens, max_len is {self.max_len}."
            )
        return Encoded(record.sample_id, ids_T, labels_T, record.images)

    def load(self, root: str | None, image: str, seen: int | None = None, among: int = 1) -> Media:
        """Return a picture of an image root as its model takes it; raises what `load_image` does.

        `seen`: `Record.seen`; `among`: how many pictures its record has.
        """
        return self.reader.among(among).prepare(load_image(root, image, pictures=self.pictures, seen=seen))

    def sizes(self, root: str | None, record: Record) -> list[Size] | None:
        """Return the sizes of a record's pictures as they show; None where no number of tokens depends on them.

        Raises what `load_image` does.
        """
        if self.reader.fixed is not None:
            return None
        return [load_image(root, i, pictures=self.pictures, seen=record.seen(i)).size for i in record.images]

    def finish(self, batch: dict[str, Any], device: Any = None) -> dict[str, Any]:
        """Return a collated batch whose media, moved to `device` first, have the values that the model takes."""
        media = {n: v if device is None else v.to(device) for n, v in batch["media"].items()}
        return batch | {"media": self.reader.finish(media)}

    @property
    def end_id(self) -> int | None:
        """The id that ends an answer, for generation; None where the tokenizer has no end."""
        end = self.template.end
        return self._token(end.text) if end.kind == "token" else self.tokenizer.eos_token_id

    def recipe(self) -> dict[str, Any]:
        """Return what the numbers depend on, for feature keys."""
        own = {"template_digest": self.template.digest} if isinstance(self.template, OwnTemplate) else {}
        return {
            "template": self.template.name,
            **own,
            "max_len": self.max_len,
            "image_mode": self.reader.image_mode,
            "pictures": self.pictures,
        }

    def _tokenise(
        self, record: Record, segments: list[Segment], sizes: Sequence[Size] | None, among: int
    ) -> tuple[Array, Array]:
        """Return ids and labels, i64 [T] both; `among`: pictures of the whole record, of which a prompt shows the first."""
        if any(self.reader.around):
            segments = [part for segment in segments for part in self._with_around(segment)]
        marks = [i for i, s in enumerate(segments) if s.kind != "text"]
        shown, pictures = sum(segments[i].kind == "image" for i in marks), len(record.images)
        if shown != pictures:
            raise EncodeError(
                f"record {record.sample_id}: each picture needs exactly one <image> in its questions; "
                f"pictures: {pictures}, marks: {shown}."
            )
        reader = self.reader.among(among)
        starts, ends = [0, *(i + 1 for i in marks)], [*marks, len(segments)]
        # LLaVA tokenises what follows a picture anew; Hugging Face's processors, whose way `own` is, tokenise the whole row
        own = self.template.name == OWN
        behind = [False, *(own or segments[i].kind != "image" for i in marks)]
        if sizes is None and pictures and self.reader.fixed is None:
            raise ValueError("how many tokens these pictures become depends on their sizes: give them.")
        waiting = iter(sizes or [None] * pictures)
        texts = iter(self._texts([segments[a:b] for a, b in zip(starts, ends, strict=True)], behind))
        bos = self.tokenizer.bos_token_id if self.template.bos else None
        if self.template.name == "plain" and bos == self.tokenizer.eos_token_id:
            bos = None  # one mark for everything (phi, GPT-2): their tokenizers place none in front
        pieces: list[Piece] = [] if bos is None else [([bos], np.zeros(1, bool))]
        pieces.append(next(texts))
        for mark, text in zip((segments[i] for i in marks), texts, strict=True):
            special = reader.ids(next(waiting)) if mark.kind == "image" else self._special(mark)
            pieces += [(special, np.full(len(special), mark.trained)), text]
        ids_T = np.concatenate([np.array(ids, np.int64) for ids, _ in pieces])
        trained_T = np.concatenate([trained for _, trained in pieces])
        return ids_T, np.where(trained_T, ids_T, IGNORE)

    def _with_around(self, segment: Segment) -> list[Segment]:
        """Put the reader's text before and behind a picture."""
        if segment.kind != "image":
            return [segment]
        before, behind = (Segment("text", text) for text in self.reader.around)
        return [s for s in (before, segment, behind) if s.kind == "image" or s.text]

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

    def _token(self, text: str) -> int:
        if text not in self._tokens:
            self._tokens[text] = _single_id(self.tokenizer, text, self.template.name)
        return self._tokens[text]

    def _special(self, mark: Segment) -> list[int]:
        if mark.kind == "token":
            return [self._token(mark.text)]
        if self.tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no end-of-text token, so answers could not end.")
        return [int(self.tokenizer.eos_token_id)]


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


def _check_tokenizer(tokenizer: Any, image_id: int) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise InputError("label masks need a fast tokenizer (character offsets); this one is slow.")
    for token in filter(None, (tokenizer.convert_ids_to_tokens(image_id), tokenizer.eos_token, tokenizer.bos_token)):
        _check_literal(tokenizer, token)


def _check_literal(tokenizer: Any, token: str) -> None:
    ids = tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if tokenizer.convert_tokens_to_ids(token) in ids:
        raise InputError(
            f"a literal {token!r} in a text would become the special token: mark it as special in tokenizer.json."
        )


def _single_id(tokenizer: Any, token: str, template: str) -> int:
    """Return the id of a special token that a template places."""
    token_id = tokenizer.convert_tokens_to_ids(token)
    # an unknown token gives the id of <unk>, or None
    if token_id is None or tokenizer.convert_ids_to_tokens(token_id) != token:
        raise InputError(
            f"conversation template {template!r} places {token!r}, which this tokenizer does not know as one token: take "
            "the template that its language model was made with."
        )
    _check_literal(tokenizer, token)
    return int(token_id)
