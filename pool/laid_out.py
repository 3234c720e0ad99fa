"""A structure of turns as a chat template lays it out: its own text, cut into segments, and places for the texts.

A text's place is a number between two private-use characters. Spans are characters of a rendering, [begin, end).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..store.errors import InputError
from .rendering import BEGIN, END
from .templates import Segment

PLACE = re.compile("\uf8f0(\\d+)\uf8f1")
PRIVATE = re.compile("[\uf8f0-\uf8f3]")
Span = tuple[int, int]

# what white space a template may take off a text: none, at both ends, or at one; of any kind, or line breaks
_TRIMS: tuple[Callable[[str], str], ...] = (
    lambda t: t,
    str.strip,
    str.rstrip,
    str.lstrip,
    lambda t: t.strip("\n"),
    lambda t: t.rstrip("\n"),
    lambda t: t.lstrip("\n"),
)
_OTHERWISE = "the chat template lays these turns out in another way than others of their kind: it goes by what they say"


def place(number: int) -> str:
    """Return what stands for a text."""
    return f"\uf8f0{number}\uf8f1"


@dataclass(frozen=True)
class LaidOut:
    """`literals` [N + 1] are the template's own texts, `places` [N] the numbers of the texts between them.

    `parts` [N + 1]: each literal as segments; `trained`, `asked` [N] say so of the texts. `prompts`: what each answer's
    prompt is of it, as (messages before the answer, characters of literals, texts).
    """

    literals: list[str]
    places: list[int]
    parts: list[list[Segment]]
    trained: list[bool]
    asked: list[bool]
    prompts: list[tuple[int, int, int]]

    def said(self, whole: str, texts: Sequence[str]) -> list[str]:
        """Return the texts [N] as a rendering holds them: it must be this structure's with the texts put in.

        White space at their ends may be missing.

        Raises:
            InputError: it is not.
        """
        if not whole.startswith(self.literals[0]):
            raise InputError(f"{_OTHERWISE}.")
        said, begin, last = list[str](), len(self.literals[0]), len(self.places) - 1
        for n, (number, behind) in enumerate(zip(self.places, self.literals[1:], strict=True)):
            for trim in _TRIMS:
                text = trim(texts[number])
                end = begin + len(text)
                fits = whole.startswith(text, begin) and whole.startswith(behind, end)
                if fits and (n < last or end + len(behind) == len(whole)):
                    break
            else:
                raise InputError(f"the chat template does not write this text as it is: {texts[number][:60]!r}.")
            said.append(text)
            begin = end + len(behind)
        if begin != len(whole):
            raise InputError(f"{_OTHERWISE}.")
        return said

    def segments(self, said: Sequence[str]) -> list[Segment]:
        """Return all segments, the texts [N] put in."""
        segments = list(self.parts[0])
        for text, trained, asked, parts in zip(said, self.trained, self.asked, self.parts[1:], strict=True):
            if text:
                segments.append(Segment("text", text, trained, asked))
            segments += parts
        return segments


class Cutter:
    """Cuts a template's own text at pictures and special tokens, the longest first, as the tokenizer does."""

    def __init__(self, tokenizer: Any, mark: str) -> None:
        """`mark`: what stands for a picture."""
        special = {t.content: t for t in tokenizer.added_tokens_decoder.values() if t.special and t.content}
        longest = sorted(special.keys() - {mark}, key=len, reverse=True)
        self.mark, self._cut = mark, re.compile(f"({'|'.join(map(re.escape, [mark, *longest]))})")
        # tokens that swallow the white space beside them
        self._left = {text for text, token in special.items() if token.lstrip}
        self._right = {text for text, token in special.items() if token.rstrip}

    def parts(self, whole: str, span: Span, trained: Sequence[Span]) -> list[Segment]:
        """Return the segments of one literal, cut also where training begins and ends."""
        (begin, end), parts = span, list[Segment]()
        for number, piece in enumerate(self._cut.split(whole[begin:end])):
            stop = begin + len(piece)
            if number % 2:
                kind = "image" if piece == self.mark else "token"
                is_trained = kind == "token" and any(a <= begin < b for a, b in trained)
                parts.append(Segment(kind, piece if kind == "token" else "", is_trained))
            elif piece:
                cuts = {begin, stop, *(n for s in trained for n in s if begin < n < stop)}
                for a, b in pairwise(sorted(cuts)):
                    parts.append(Segment("text", whole[a:b], any(x <= a < y for x, y in trained)))
            begin = stop
        return parts

    def last_token(self, text: str, begin: int) -> int | None:
        """Return where the last special token behind `begin` ends."""
        ends = [m.end() for m in self._cut.finditer(text, begin) if m[0] != self.mark]
        return ends[-1] if ends else None

    def swallowed(self, segments: list[Segment]) -> list[Segment]:
        """Take the white space away that special tokens swallow."""
        if not self._left and not self._right:
            return segments
        for texts, strip, step in ((self._right, str.lstrip, 1), (self._left, str.rstrip, -1)):
            for i in [i for i, s in enumerate(segments) if s.kind == "token" and s.text in texts]:
                j = i + step
                while 0 <= j < len(segments) and segments[j].kind == "text":
                    beside = segments[j]
                    segments[j] = Segment("text", strip(beside.text), beside.trained, beside.asked)
                    if segments[j].text:
                        break
                    j += step
        return [s for s in segments if s.kind != "text" or s.text]


def blocks(marked: str, roles: Sequence[str]) -> list[Span]:
    """Return the spans of `{% generation %}` blocks, in characters of the rendering without their marks.

    `roles`: of the places, by number. A block behind a turn without words, which has no place, is left out.
    """
    spans, length, begin, last = list[Span](), 0, 0, ""
    for piece in re.split(f"({BEGIN}|{END}|\uf8f0\\d+\uf8f1)", marked):
        if piece == BEGIN:
            begin = length
        elif piece == END:
            if last == "assistant":
                spans.append((begin, length))
        else:
            if number := PLACE.fullmatch(piece):
                last = roles[int(number[1])]
            length += len(piece)
    return spans
