"""Template `own`: a model's own chat template says how turns are laid out, and which of it is trained.

Users' words never reach the parser of special tokens. A conversation's structure (roles, parts, which texts are empty) is
rendered once, with a private-use mark in place of every text; between the marks stands the template's own text, which alone
is cut at special tokens and pictures. Each record is then rendered as it is, and must be that text with its own words put
in, white space at their ends aside; one that is not is refused. Trained is what stands in `{% generation %}` blocks, or
else what an answer adds to the prompt before it, up to its end mark; the prompt and every shorter history must be the
beginning of the whole. Source: spec families §2.2.
"""

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..store.errors import InputError
from .checks import IMAGE
from .rendering import BEGIN, END, Renderer, TemplateFaultError
from .templates import OWN, Segment, Turns

# a text's place in a structure's rendering
_PLACE = re.compile("\uf8f0(\\d+)\uf8f1")
_PRIVATE = re.compile("[\uf8f0-\uf8f3]")
# structures that are kept laid out: conversations of the same number of turns share one
_KEPT = 4096
# what white space a template may take off a text: none, at both ends, or at one
_TRIMS = [(lambda t: t), str.strip, str.rstrip, str.lstrip]
_TRIMS += [lambda t: t.strip("\n"), lambda t: t.rstrip("\n"), lambda t: t.lstrip("\n")]

# a message's role and parts: None for a picture, else a text
Part = str | None
Message = tuple[str, tuple[Part, ...]]
# stretches of characters that are trained
Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class _Layout:
    """A structure, laid out: `literals` [N + 1] are the template's own, `places` [N] the texts between them.

    `parts` [N + 1] are the literals as segments; `trained`, `asked` [N] say so of the texts.
    """

    literals: list[str]
    places: list[int]
    parts: list[list[Segment]]
    trained: list[bool]
    asked: list[bool]

    def segments(self, whole: str, texts: Sequence[str]) -> list[Segment]:
        """Return the segments of a rendering, its texts put in.

        Raises:
            InputError: the rendering is another one.
        """
        segments, begin = list(self.parts[0]), len(self.literals[0])
        if not whole.startswith(self.literals[0]):
            raise InputError("the chat template lays these turns out in another way than others like them.")
        last = len(self.places) - 1
        for n, number in enumerate(self.places):
            text, behind = texts[number], self.literals[n + 1]
            for trim in _TRIMS:
                said = trim(text)
                end = begin + len(said)
                fits = whole.startswith(said, begin) and whole.startswith(behind, end)
                if fits and (n < last or end + len(behind) == len(whole)):
                    break
            else:
                raise InputError(f"the chat template does not write this text as it is: {text[:60]!r}.")
            if said:
                segments.append(Segment("text", said, self.trained[n], self.asked[n]))
            segments += self.parts[n + 1]
            begin = end + len(behind)
        if not self.places and whole != self.literals[0]:
            raise InputError("the chat template lays these turns out in another way than others like them.")
        return segments


class OwnTemplate:
    """The chat template of a tokenizer; what `templates.Template` is to an encoder."""

    name = OWN
    bos = False  # it is one of the segments
    tokens: tuple[str, ...] = ()  # those that are met

    def __init__(self, tokenizer: Any, mark: str) -> None:
        """Compile the tokenizer's chat template; `mark`: what stands for a picture in it.

        Raises:
            InputError: there is none, it is no template, or it shows no conversation of one question and its answer.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "template 'own' is the chat template in the model's folder, and there is none: name another template, "
                "or put the model's chat_template.jinja there."
            )
        text = tokenizer.get_chat_template()
        if _PRIVATE.search(text):
            raise InputError("the chat template writes private-use characters, which mark the places of texts here.")
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.mark, self.system = mark, ""
        self._renderer = Renderer(text, dict(tokenizer.special_tokens_map))
        self._first = _beginning(tokenizer)
        self._cut = _cutter(tokenizer, mark)
        self._layouts: dict[Any, _Layout | InputError] = {}
        self._listed = self._forms()
        self.end = self._end()

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
        segments = self._laid_out(self._messages(conversations[: 2 * answers + 1], has_image), True)
        return [replace(s, trained=False) if s.trained else s for s in segments]

    def _messages(self, turns: Turns, has_image: bool) -> list[Message]:
        messages: list[Message] = [("system", (self.system,))] if self.system else []
        for turn in turns:
            text = turn["value"]
            if turn["from"] == "gpt":
                messages.append(("assistant", (text,)))
            elif has_image and IMAGE in text:
                first, *rest = text.split(IMAGE)
                parts: list[Part] = [first]
                for piece in rest:
                    parts += [None, piece]
                messages.append(("user", tuple(p for p in parts if p != "")))
            else:
                messages.append(("user", (text,)))
        return messages

    def _laid_out(self, messages: list[Message], open_answer: bool) -> list[Segment]:
        texts = [p for _, parts in messages for p in parts if p is not None and p.strip()]
        marked, number = list[Message](), 0
        for role, parts in messages:
            places = list[Part]()
            for part in parts:
                if part is not None and part.strip():  # what is white space stands as it is: templates may look for it
                    part, number = f"\uf8f0{number}\uf8f1", number + 1
                places.append(part)
            marked.append((role, tuple(places)))
        key = (open_answer, *marked)
        layout = self._layouts.get(key)
        if layout is None:
            try:
                layout = self._lay_out(marked, open_answer)
            except InputError as error:
                layout = error
            if len(self._layouts) < _KEPT:
                self._layouts[key] = layout
        if isinstance(layout, InputError):
            raise InputError(str(layout))
        return layout.segments(self._render(messages, open_answer), texts)

    def _render(self, messages: Sequence[Message], open_answer: bool = False, marked: bool = False) -> str:
        said = [{"role": role, "content": self._content(role, parts)} for role, parts in messages]
        return self._renderer.render(said, open_answer, marked)

    def _content(self, role: str, parts: tuple[Part, ...]) -> Any:
        if role in self._listed:
            return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        return "".join(self.mark if part is None else part for part in parts)

    def _lay_out(self, messages: list[Message], open_answer: bool) -> _Layout:
        whole, spans = self._render(messages, open_answer), Spans()
        if not open_answer:
            spans = self._blocks(messages) if self._renderer.marks_answers else self._additions(messages, whole)
        places = [(m.start(), m.end(), int(m[1])) for m in _PLACE.finditer(whole)]
        asked = [role == "user" for role, parts in messages for p in parts if p is not None and _PLACE.fullmatch(p)]
        if sorted(n for *_, n in places) != list(range(len(asked))):
            gone = set(range(len(asked))) - {n for *_, n in places}
            roles = [role for role, parts in messages for p in parts if p is not None and _PLACE.fullmatch(p)]
            what = "leaves out a text" if gone else "writes a text twice"
            raise InputError(f"the chat template {what} of the turns of {', '.join(sorted({roles[n] for n in gone}))}.")
        borders = [0, *(n for begin, end, _ in places for n in (begin, end)), len(whole)]
        own = [(borders[i], borders[i + 1]) for i in range(0, len(borders), 2)]
        parts = [self._parts(whole, begin, end, spans) for begin, end in own]
        if self._first is not None and not whole.startswith(self._first):
            parts[0].insert(0, Segment("token", self._first))
        return _Layout(
            [whole[begin:end] for begin, end in own],
            [n for *_, n in places],
            parts,
            [any(a <= begin < b for a, b in spans) for begin, *_ in places],
            [asked[n] for *_, n in places],
        )

    def _parts(self, whole: str, begin: int, end: int, spans: Spans) -> list[Segment]:
        """Cut the template's own text at its special tokens and pictures, and where training begins and ends."""
        parts = list[Segment]()
        for piece in self._cut.split(whole[begin:end]):
            if piece is None or not piece:
                continue
            stop = begin + len(piece)
            if piece == self.mark:
                parts.append(Segment("image"))
            elif self._cut.fullmatch(piece):
                parts.append(Segment("token", piece, any(a <= begin < b for a, b in spans)))
            else:
                cuts = {begin, stop, *(n for span in spans for n in span if begin < n < stop)}
                for a, b in pairwise(sorted(cuts)):
                    parts.append(Segment("text", whole[a:b], any(x <= a < y for x, y in spans)))
            begin = stop
        return parts

    def _blocks(self, messages: list[Message]) -> Spans:
        """Return the `{% generation %}` blocks' characters, but for those behind an answer without words."""
        spans, length = Spans(), 0
        roles = [role for role, parts in messages for p in parts if p is not None and _PLACE.fullmatch(p)]
        begin: int | None = None
        last = ""
        for piece in re.split(
            f"([{BEGIN}{END}]|{_PLACE.pattern.replace('(', '(?:')})", self._render(messages, marked=True)
        ):
            if piece == BEGIN:
                begin = length
            elif piece == END:
                if begin is not None and last == "assistant":
                    spans.append((begin, length))
                begin = None
            else:
                if place := _PLACE.fullmatch(piece):
                    last = roles[int(place[1])]
                length += len(piece)
        return spans

    def _additions(self, messages: list[Message], whole: str) -> Spans:
        """Return what each answer adds to the prompt before it, up to its end mark."""
        spans = Spans()
        for i, (role, parts) in enumerate(messages):
            if role != "assistant":
                continue
            prompt, turn = self._render(messages[:i], open_answer=True), self._render(messages[: i + 1])
            if not (whole.startswith(turn) and turn.startswith(prompt)):
                raise InputError(
                    "the chat template writes a history in another way than the prompt before its answer, so which of it "
                    "an answer is cannot be told."
                )
            if any(p is not None and _PLACE.fullmatch(p) for p in parts):
                spans.append((len(prompt), self._last(turn, len(prompt))))
        return spans

    def _last(self, turn: str, begin: int) -> int:
        """Return where an answer's end mark ends; without one, where its text does."""
        ends = [m.end() for m in self._cut.finditer(turn, begin) if m[0] != self.mark]
        return ends[-1] if ends else len(turn.rstrip())

    def _forms(self) -> frozenset[str]:
        """Return the roles whose content is a list of parts; others take a text."""
        both = [("user", (None, "\uf8f00\uf8f1")), ("assistant", ("\uf8f01\uf8f1",))]
        told = [("system", ("\uf8f02\uf8f1",)), *both]
        faults = list[str]()
        for listed in (("user", "assistant"), ("user",), ("assistant",), ()):
            self._listed = frozenset(listed)
            try:
                text = self._render(both)
            except TemplateFaultError as error:
                faults.append(str(error))
                continue
            if _shows(text, 2) and text.count(self.mark) == 1:
                break
        else:
            raise InputError(
                faults[0]
                if len(faults) == 4
                else f"the chat template does not write one question, its picture ({self.mark}) and its answer, each once."
            )
        listed = self._listed
        for more in ("system",), ():
            self._listed = listed.union(more)
            try:
                if _shows(self._render(told), 3):
                    break
            except TemplateFaultError:  # a record with a system prompt is refused by this
                continue
        return self._listed

    def _end(self) -> Segment:
        """Return the mark that ends an answer: a special token, or the tokenizer's own end where there is none."""
        try:
            parts = self._laid_out([("user", ("what?",)), ("assistant", ("this",))], False)
        except InputError as error:
            raise InputError(f"one question and its answer: {error}") from error
        tokens = [s for s in parts if s.kind == "token" and s.trained]
        return tokens[-1] if tokens else Segment("eos", trained=True)


def _shows(text: str, count: int) -> bool:
    return sorted(_PLACE.findall(text)) == [str(n) for n in range(count)] and "'type'" not in text


def _beginning(tokenizer: Any) -> str | None:
    """Return the token that the tokenizer itself puts in front of a text."""
    ids = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    if ids == plain:
        return None
    if ids[1:] != plain:
        raise InputError(
            "the tokenizer puts tokens of its own around a text, beyond a first one: take another template."
        )
    return str(tokenizer.convert_ids_to_tokens(ids[0]))


def _cutter(tokenizer: Any, mark: str) -> re.Pattern[str]:
    """Return what cuts a text at a picture's mark and at special tokens, the longest first, as the tokenizer does."""
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    special = [mark, *sorted((t for t in special if t and t != mark), key=len, reverse=True)]
    return re.compile(f"({'|'.join(map(re.escape, special))})")
