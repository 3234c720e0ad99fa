"""Conversation templates: how turns become text, and which of it is trained. A new template is one entry.

Texts and separators are LLaVA's (spec: LLaVA §2.1, §2.4), but for `phi` (TinyLLaVA), `chatml` (Qwen2) and `gemma` (Gemma).
A segment is text, or one of the special marks; only marks become special tokens, so a literal `</s>` in an answer stays
text. Trained are an answer and its end mark; an empty answer trains nothing, its round is laid out all the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ..store.errors import InputError
from .checks import IMAGE

Turns = list[dict[str, str]]


@dataclass(frozen=True)
class Segment:
    """A stretch of the prompt. `kind`: text, or a special mark; `trained`: it carries loss.

    Marks: `image`; `eos`, the tokenizer's own end; `token`, the special token that `text` spells. `asked`: it is what a
    human turn says, no part of the template.
    """

    kind: Literal["text", "image", "eos", "token"]
    text: str = ""
    trained: bool = False
    asked: bool = False


@dataclass(frozen=True)
class Template:
    """A template: its system prompt, how it lays turns out, and how it opens an answer for generation.

    `tokens`: special tokens that it places, each of which the tokenizer must know as one id; the first one ends an
    answer. Without any, answers end in the tokenizer's own end. `bos`: a row begins with the tokenizer's beginning
    token, where it has one. `told`: it has a place for a system prompt, which a record's own then takes.
    """

    name: str
    system: str
    layout: Callable[["Template", Turns, bool], list[Segment]]
    opening: Callable[["Template", Turns, bool], list[Segment]]
    tokens: tuple[str, ...] = ()
    bos: bool = True
    told: bool = True

    def with_system(self, system: str) -> "Template":
        """Return the template with a record's own system prompt in place of its own; itself for an empty one.

        Raises:
            InputError: it has no place for one.
        """
        if not system:
            return self
        if not self.told:
            fits = ", ".join(t.name for t in TEMPLATES.values() if t.told)
            raise InputError(
                f"template {self.name!r} has no place for a system prompt, and the record has one ({system[:60]!r}): "
                f"take one of {fits}, or remove the prompt from the data."
            )
        return replace(self, system=system)

    @property
    def end(self) -> Segment:
        """The trained mark behind an answer."""
        return Segment("token", self.tokens[0], True) if self.tokens else Segment("eos", trained=True)

    def segments(self, conversations: Turns, has_image: bool) -> list[Segment]:
        """Lay a whole conversation out, for training.

        Raises:
            InputError: the template is not made for this number of turns.
        """
        return self.layout(self, conversations, has_image)

    def prompt(self, conversations: Turns, has_image: bool, answers: int = 0) -> list[Segment]:
        """Lay a conversation out up to where an answer begins, for generation; `answers` of its history stand before it.

        Nothing of it is trained.

        Raises:
            InputError: the template is not made for so many turns, or the conversation has no such answer.
        """
        if not answers:
            return self.opening(self, conversations, has_image)
        if not 0 < answers < len(conversations[::2]):
            raise InputError(f"there is no answer {answers + 1} in a conversation of {len(conversations)} turns.")
        # an answer that is sure to be laid out: it is what is cut off again
        said = {**conversations[2 * answers], "value": " "}
        history = self.segments([*conversations[: 2 * answers + 1], said], has_image)
        last = max(i for i, segment in enumerate(history) if segment.trained and segment.kind == "text")
        return [replace(segment, trained=False) for segment in history[:last]]


def split_image(text: str, has_image: bool) -> list[Segment]:
    """Split a human turn at every `<image>`; without a picture the mark is text like any other."""
    if not has_image or IMAGE not in text:
        return [Segment("text", text, asked=True)]
    first, *rest = text.split(IMAGE)
    segments = [Segment("text", first, asked=True)]
    for piece in rest:
        segments += [Segment("image"), Segment("text", piece, asked=True)]
    return [s for s in segments if s.kind != "text" or s.text]


def _asked(question: str, has_image: bool) -> list[Segment]:
    # LLaVA leaves out message and separator of an empty message: "USER:ASSISTANT: …"
    if not question:
        return [Segment("text", "USER:ASSISTANT:")]
    return [Segment("text", "USER: "), *split_image(question, has_image), Segment("text", " ASSISTANT:")]


def _vicuna(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    """`{system} USER: {q} ASSISTANT: {a}</s>USER: {q2} …`; no space behind `</s>`."""
    segments: list[Segment] = [Segment("text", f"{template.system} ")]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        segments += _asked(question["value"], has_image)
        if answer["value"]:
            # the space before the answer melts into its first token, which is trained
            segments += [Segment("text", f" {answer['value']}", True), template.end]
        # an empty answer is not trained and ends without `</s>`; later rounds are trained
    return segments


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


def _llama_2(template: Template, turns: Turns, has_image: bool, *, between: list[Segment]) -> list[Segment]:
    """`[INST] <<SYS>>…<</SYS>>\\n\\n{q} [/INST] {a} </s>` + `between` + `[INST] {q2} [/INST] …`.

    The space behind an answer is the template's, and is trained as in LLaVA. An empty later question leaves its
    whole instruction out.
    """
    segments = _llama_2_open(template, turns, has_image)
    for number, (question, answer) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        if number and question["value"]:
            segments += [*between, *_instruction("", question["value"], has_image)]
        if answer["value"]:
            segments += [Segment("text", f" {answer['value']} ", True), template.end]
    return segments


def _llama_2_open(template: Template, turns: Turns, has_image: bool) -> list[Segment]:
    if not turns[0]["value"]:
        raise InputError(f"template {template.name!r} needs a first question, as LLaVA asserts; use 'v1'.")
    system = f"<<SYS>>\n{template.system}\n<</SYS>>\n\n" if template.system else ""
    return _instruction(system, turns[0]["value"], has_image)


def _instruction(system: str, question: str, has_image: bool) -> list[Segment]:
    return [Segment("text", f"[INST] {system}"), *split_image(question, has_image), Segment("text", " [/INST]")]


def _turns(template: Template, turns: Turns, has_image: bool, *, roles: tuple[str, str]) -> list[Segment]:
    """`{open}{role}\\n{text}{end}\\n`, system prompt first where there is one; `tokens` are end and open."""
    segments = _told(template)
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        segments += _put(template, roles, question["value"], has_image)
        if answer["value"]:
            segments += [Segment("text", answer["value"], True), template.end, Segment("text", "\n")]
        else:
            segments += [Segment("token", template.tokens[0]), Segment("text", "\n")]
    return segments


def _turns_open(template: Template, turns: Turns, has_image: bool, *, roles: tuple[str, str]) -> list[Segment]:
    return _told(template) + _put(template, roles, turns[0]["value"], has_image)


def _told(template: Template) -> list[Segment]:
    if not template.system:
        return []
    end, begin = (Segment("token", t) for t in template.tokens)
    return [begin, Segment("text", f"system\n{template.system}"), end, Segment("text", "\n")]


def _put(template: Template, roles: tuple[str, str], question: str, has_image: bool) -> list[Segment]:
    """A question, and the opening of its answer."""
    end, begin = (Segment("token", t) for t in template.tokens)
    asked = [Segment("text", f"{roles[0]}\n"), *split_image(question, has_image), end, Segment("text", "\n")]
    return [begin, *asked, begin, Segment("text", f"{roles[1]}\n")]


V1_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
# Qwen2's chat template says this where no system turn is given (its tokenizer_config.json); LLaVA-NeXT's `qwen_1_5` too
CHATML_SYSTEM = "You are a helpful assistant."
_CHATML, _GEMMA = {"roles": ("user", "assistant")}, {"roles": ("user", "model")}

_ALL = (
    Template("v1", V1_SYSTEM, _vicuna, _vicuna_open),
    Template("plain", "", _plain, _plain_open, told=False),
    Template(
        "llava_llama_2",
        LLAMA_2_SYSTEM,
        partial(_llama_2, between=[Segment("token", "<s>")]),
        _llama_2_open,
        ("</s>", "<s>"),
    ),
    # [INST] is text, as in LLaVA and in Mistral's tokenizers up to v0.2
    Template("mistral_instruct", "", partial(_llama_2, between=[]), _llama_2_open, ("</s>",), told=False),
    Template(
        "chatml",
        CHATML_SYSTEM,
        partial(_turns, **_CHATML),
        partial(_turns_open, **_CHATML),
        ("<|im_end|>", "<|im_start|>"),
        bos=False,
    ),
    # phi-2's beginning token is <|endoftext|> too, and its tokenizer never places it
    Template("phi", V1_SYSTEM, _vicuna, _vicuna_open, ("<|endoftext|>",), bos=False),
    Template(
        "gemma",
        "",
        partial(_turns, **_GEMMA),
        partial(_turns_open, **_GEMMA),
        ("<end_of_turn>", "<start_of_turn>"),
        told=False,
    ),
)
TEMPLATES = {template.name: template for template in _ALL}
# the chat template in the model's own folder (`own_template.py`)
OWN = "own"
NAMES = (*TEMPLATES, OWN)
