"""Template `own`: a model's own chat template says how turns are laid out, and which of it is trained.

Users' words never reach the parser of special tokens. A conversation's structure (roles, parts, which texts are empty) is
rendered once, with a private-use mark in place of every text; between the marks stands the template's own text, which alone
is cut at special tokens and pictures. Each record is then rendered as it is, and must be that text with its own words put
in, white space at their ends aside; one that is not is refused. Trained is what stands in `{% generation %}` blocks, or
else what an answer adds to the prompt before it, up to its end mark: then every prompt must be the beginning of the whole.
An answer without words trains nothing. Source: spec families §2.2.
"""

import copy
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from ..store.errors import InputError
from .checks import IMAGE
from .laid_out import PLACE, PRIVATE, Cutter, LaidOut, Span, blocks, place
from .rendering import Renderer, TemplateFaultError
from .templates import OWN, Segment, Turns

# structures that are kept laid out: conversations of the same number of turns share one
_KEPT = 4096
_ENDLESS = (
    "the chat template ends no answer with a special token: a model that is trained on it does not learn to stop."
)
_LOG = logging.getLogger("vinnow.templates")
# digests of templates that were told of, once a process
TOLD_OF: set[str] = set()
# a part of a message: a text, or None for a picture
Part = str | None
Message = tuple[str, tuple[Part, ...]]
_NO_PREFIX = (
    "the chat template writes a history in another way than the prompt that asked for its answer, so what of it the answer "
    "is cannot be told."
)


class OwnTemplate:
    """The chat template of a tokenizer; what `templates.Template` is to an encoder.

    `bos`: the tokenizer puts its beginning token in front of what the template writes. `end`: what ends an answer, a
    special token, or the tokenizer's own end where the template writes none (`ends` is False then, and a model cannot
    learn to stop from it). `digest`: of the template's text.
    """

    name = OWN
    tokens: tuple[str, ...] = ()  # they are looked up when they are met

    def __init__(self, tokenizer: Any, mark: str) -> None:
        """Compile the tokenizer's chat template; `mark`: what stands for a picture in it.

        Raises:
            InputError: there is none, it is no template, or it shows no conversation of one question and its answer.
        """
        text = _text_of(tokenizer)
        self.digest, self.system = hashlib.sha256(text.encode()).hexdigest(), ""
        self._mark, self._cutter = mark, Cutter(tokenizer, mark)
        self._renderer = Renderer(text, dict(tokenizer.special_tokens_map))
        self._layouts: dict[Any, LaidOut | str] = {}
        self._listed = self._forms()
        question: list[Message] = [("user", ("what?",)), ("assistant", ("this",))]
        # as Hugging Face's processors do: one that stands there already is not put there again
        self._beginning = _beginning(tokenizer)
        self.bos = self._beginning is not None and not self._render(question).startswith(self._beginning)
        marks = [s for s in self._laid_out(question, False) if s.kind == "token" and s.trained]
        self.ends, self.end = bool(marks), marks[-1] if marks else Segment("eos", trained=True)
        if not self.ends and self.digest not in TOLD_OF:
            TOLD_OF.add(self.digest)
            _LOG.warning(_ENDLESS)

    def with_system(self, system: str) -> "OwnTemplate":
        """Return the template with a record's own system prompt; itself without one."""
        if not system:
            return self
        told = copy.copy(self)
        told.system = system
        return told

    def segments(self, conversations: Turns, has_image: bool) -> list[Segment]:
        """Lay a whole conversation out, for training.

        Raises:
            InputError: the template refuses it, drops or changes a text, or a prompt is not the beginning of the whole.
        """
        return self._laid_out(self._messages(conversations, has_image), False)

    def prompt(self, conversations: Turns, has_image: bool, answers: int = 0) -> list[Segment]:
        """Lay a conversation out up to where an answer begins; `answers` of its history stand before it.

        Raises:
            InputError: as `segments`, or the conversation has no such answer.
        """
        if answers and not 0 < answers < len(conversations[::2]):
            raise InputError(f"there is no answer {answers + 1} in a conversation of {len(conversations)} turns.")
        return self._laid_out(self._messages(conversations[: 2 * answers + 1], has_image), True)

    def _messages(self, turns: Turns, has_image: bool) -> list[Message]:
        messages: list[Message] = [("system", (self.system,))] if self.system else []
        for turn in turns:
            text = turn["value"]
            if turn["from"] == "gpt":
                messages.append(("assistant", (text,)))
            elif has_image and IMAGE in text:
                first, *rest = text.split(IMAGE)
                parts = [first, *(part for piece in rest for part in (None, piece))]
                messages.append(("user", tuple(p for p in parts if p != "")))
            else:
                messages.append(("user", (text,)))
        return messages

    def _laid_out(self, messages: list[Message], open_answer: bool) -> list[Segment]:
        structure, texts = list[Message](), list[str]()
        for role, parts in messages:
            places = list[Part]()
            for part in parts:
                # white space stands as it is: templates may look for a turn without words
                if part is not None and part.strip():
                    places.append(place(len(texts)))
                    texts.append(part)
                else:
                    places.append(part)
            structure.append((role, tuple(places)))
        layout = self._layout(structure, open_answer)
        whole = self._render(messages, open_answer)
        said = layout.said(whole, texts)
        for before, characters, count in layout.prompts:
            if self._render(messages[:before], True) != whole[: characters + sum(map(len, said[:count]))]:
                raise InputError(_NO_PREFIX)
        return self._cutter.swallowed(layout.segments(said))

    def _layout(self, structure: list[Message], open_answer: bool) -> LaidOut:
        """Return a structure's layout, which is kept; or raise why it has none, which is kept too."""
        key = (open_answer, *structure)
        layout = self._layouts.get(key)
        if layout is None:
            try:
                layout = self._lay_out(structure, open_answer)
            except InputError as error:
                layout = str(error)
            if len(self._layouts) < _KEPT:
                self._layouts[key] = layout
        if isinstance(layout, str):
            raise InputError(layout)
        return layout

    def _lay_out(self, structure: list[Message], open_answer: bool) -> LaidOut:
        whole, spans, prompts = self._render(structure, open_answer), list[Span](), list[tuple[int, int]]()
        roles = [role for role, parts in structure for part in parts if part is not None and PLACE.fullmatch(part)]
        if self._beginning is not None and whole.startswith(self._beginning) is self.bos:
            raise InputError("the chat template writes the beginning token for some conversations and not for others.")
        if not open_answer and self._renderer.marks_answers:
            spans = blocks(self._render(structure, marked=True), roles)
        elif not open_answer:
            spans, prompts = self._additions(structure, whole)
        places = [(m.span(), int(m[1])) for m in PLACE.finditer(whole)]
        numbers = [n for _, n in places]
        if len(numbers) != len(set(numbers)) or len(numbers) != len(roles):
            twice = sorted({roles[n] for n in numbers if numbers.count(n) > 1})
            gone = sorted({roles[n] for n in range(len(roles)) if n not in numbers})
            faults = [
                f"{what} {', '.join(of)}" for what, of in (("leaves out texts of", gone), ("repeats", twice)) if of
            ]
            raise InputError(f"the chat template {' and '.join(faults)}.")
        borders = [0, *(n for span, _ in places for n in span), len(whole)]
        own = [(borders[i], borders[i + 1]) for i in range(0, len(borders), 2)]
        counts = [(i, sum(end <= length for (_, end), _ in places), length) for i, length in prompts]
        return LaidOut(
            [whole[begin:end] for begin, end in own],
            numbers,
            [self._cutter.parts(whole, span, spans) for span in own],
            [any(a <= begin < b for a, b in spans) for (begin, _), _ in places],
            [roles[n] == "user" for n in numbers],
            [(i, length - sum(b - a for (a, b), _ in places[:count]), count) for i, count, length in counts],
        )

    def _additions(self, structure: list[Message], whole: str) -> tuple[list[Span], list[tuple[int, int]]]:
        """Return what each answer adds to its prompt, up to its end mark; and prompts: messages before it, characters."""
        spans, prompts = list[Span](), list[tuple[int, int]]()
        for i, (role, parts) in enumerate(structure):
            if role != "assistant":
                continue
            prompt, turn = self._render(structure[:i], open_answer=True), self._render(structure[: i + 1])
            if not (whole.startswith(turn) and turn.startswith(prompt)):
                raise InputError(_NO_PREFIX)
            prompts.append((i, len(prompt)))
            if any(part is not None and PLACE.fullmatch(part) for part in parts):
                end = self._cutter.last_token(turn, len(prompt))
                spans.append((len(prompt), len(turn.rstrip()) if end is None else end))
        return spans, prompts

    def _render(self, messages: Sequence[Message], open_answer: bool = False, marked: bool = False) -> str:
        said = [{"role": role, "content": self._content(role, parts)} for role, parts in messages]
        return self._renderer.render(said, open_answer, marked)

    def _content(self, role: str, parts: tuple[Part, ...]) -> Any:
        if role in self._listed:
            return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        return "".join(self._mark if part is None else part for part in parts)

    def _forms(self) -> frozenset[str]:
        """Return the roles whose content is a list of parts, as far as the template takes it; others' is a text.

        Raises:
            InputError: it writes no picture, question and answer either way.
        """
        both: list[Message] = [("user", (None, place(0))), ("assistant", (place(1),))]
        fault = f"the chat template does not write one question, its picture ({self._mark}) and its answer, each once."
        for listed in (("user", "assistant"), ("user",), ("assistant",), ()):
            self._listed = frozenset(listed)
            try:
                text = self._render(both)
            except TemplateFaultError as error:
                fault = str(error)
                continue
            if _shows(text, 2) and text.count(self._mark) == 1:
                break
        else:
            raise InputError(fault)
        plain, self._listed = self._listed, self._listed | {"system"}
        try:
            if _shows(self._render([("system", (place(2),)), *both]), 3):
                return self._listed
        except TemplateFaultError:  # as a text, then; a record whose prompt it does not take is refused
            pass
        return plain


def _text_of(tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "template 'own' is the chat template of the model's folder, and it has none: put the model's own "
            "chat_template.jinja there, or name another template."
        )
    try:
        text = tokenizer.get_chat_template()
    except ValueError as error:  # several, and none of them is called default
        raise InputError(f"the model's chat template: {error}") from error
    if PRIVATE.search(text):
        raise InputError("the chat template writes private-use characters, which stand for texts here.")
    return text


def _shows(text: str, count: int) -> bool:
    """Say whether each place is there once, and no list was written as one."""
    return sorted(PLACE.findall(text)) == [str(n) for n in range(count)] and "{'type'" not in text


def _beginning(tokenizer: Any) -> str | None:
    """Return the token that the tokenizer itself puts in front of a text.

    Raises:
        InputError: it puts others there, or some behind it.
    """
    ids, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    if ids == plain:
        return None
    if ids != [tokenizer.bos_token_id, *plain]:
        raise InputError(
            "the tokenizer puts tokens of its own around a text, beyond one beginning: take another template."
        )
    return str(tokenizer.bos_token)
