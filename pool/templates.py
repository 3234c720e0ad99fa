"""Conversation templates: how turns become text, and which of it is trained. A new template is one entry.

Texts and separators are LLaVA's (spec: LLaVA §2.1, §2.4). A segment is text, or one of the special marks;
only marks become special tokens, so a literal `</s>` in an answer stays text.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..store.errors import InputError
from .checks import IMAGE

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt. `kind`: text, or a special token (image, eos); `trained`: it carries loss."""

    kind: Literal["text", "image", "eos"]
    text: str = ""
    trained: bool = False


@dataclass(frozen=True)
class Template:
    """A template: its system prompt, how it lays turns out, and how it opens an answer for generation."""

    name: str
    system: str
    layout: Callable[["Template", Turns, bool], list[Segment]]
    opening: Callable[["Template", Turns, bool], list[Segment]]

    def segments(self, conversations: Turns, has_image: bool) -> list[Segment]:
        """Lay a whole conversation out, for training.

        Raises:
            InputError: the template is not made for this number of turns.
        """
        return self.layout(self, conversations, has_image)

    def prompt(self, conversations: Turns, has_image: bool) -> list[Segment]:
        """Lay the first question out up to where the answer begins, for generation."""
        return self.opening(self, conversations, has_image)


def split_image(text: str, has_image: bool) -> list[Segment]:
    """Split a turn at every `<image>`; without a picture the mark is text like any other."""
    if not has_image or IMAGE not in text:
        return [Segment("text", text)]
    first, *rest = text.split(IMAGE)
    found = [Segment("text", first)]
    for part in rest:
        found += [Segment("image"), Segment("text", part)]
    return [s for s in found if s.kind != "text" or s.text]


def _asked(question: str, has_image: bool) -> list[Segment]:
    # LLaVA leaves out message and separator of an empty message: "USER:ASSISTANT: …"
    if not question:
        return [Segment("text", "USER:ASSISTANT:")]
    return [Segment("text", "USER: "), *split_image(question, has_image), Segment("text", " ASSISTANT:")]


def _vicuna(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    """`{system} USER: {q} ASSISTANT: {a}</s>USER: {q2} …`; no space behind `</s>`."""
    found: list[Segment] = [Segment("text", f"{template.system} ")]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        found += _asked(question["value"], has_image)
        if answer["value"]:
            # the space before the answer melts into its first token, which is trained
            found += [Segment("text", f" {answer['value']}", True), Segment("eos", trained=True)]
        # an empty answer is not trained and ends without `</s>`; later rounds are trained
    return found


def _vicuna_open(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    return [Segment("text", f"{template.system} "), *_asked(turns[0]["value"], has_image)]


def _plain(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    """Stage 1: the images, caption and a newline; the question is thrown away, there is no `</s>`."""
    if len(turns) != 2:
        # LLaVA asserts this; taking the first answer alone would lose the others without a word
        raise InputError(f"template 'plain' is for one question and its caption, not {len(turns)} turns; use 'v1'.")
    caption = Segment("text", turns[1]["value"] + "\n", True)
    return [*_marks(turns, has_image), caption]


def _plain_open(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    return _marks(turns, has_image)


def _marks(turns: Turns, has_image: bool) -> list[Segment]:
    return [Segment("image")] * turns[0]["value"].count(IMAGE) if has_image else []


TEMPLATES = {
    "v1": Template(
        "v1",
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions.",
        _vicuna,
        _vicuna_open,
    ),
    "plain": Template("plain", "", _plain, _plain_open),
}
