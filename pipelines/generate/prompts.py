"""Prompts from files that anyone may edit: what the model is told, examples of its answers, then the picture's text.

A folder holds one folder a kind (`conversation`, `detail`, `reasoning`) with `system_message.txt`, pairs `NNN_caps.txt` and
`NNN_conv.txt`, and for detail `questions.txt`, a question a line. LLaVA's own folders have the same names inside, and those
of two kinds are called `detail_description` and `complex_reasoning`, which are read, too.
"""

import random
from dataclasses import dataclass
from pathlib import Path

from ...evaluate.remote.reply import Message
from ...store.errors import InputError
from ...store.files import exists, join, list_files, read_bytes
from .config import KINDS, Kind
from .subjects import Subject

OWN = str(Path(__file__).with_name("prompts"))
_ALSO = {"detail": "detail_description", "reasoning": "complex_reasoning"}
# conversations are asked without knowing where things are
_WITH_BOXES = ("detail", "reasoning")


@dataclass(frozen=True)
class Prompts:
    """The texts of one kind. `questions`: of which one is drawn where the model writes the answer alone."""

    kind: Kind
    system: str
    examples: tuple[tuple[str, str], ...]
    questions: tuple[str, ...] = ()

    def messages(self, subject: Subject, max_boxes: int) -> list[Message]:
        """Return what is asked about a picture."""
        shown = [Message(*turn) for pair in self.examples for turn in zip(("user", "assistant"), pair, strict=True)]
        return [Message("system", self.system), *shown, Message("user", describe(subject, self.kind, max_boxes))]

    def question(self, seed: int, image: str) -> str:
        """Return the question that a description of this picture answers."""
        return random.Random(f"{seed}:{image}").choice(self.questions)


def describe(subject: Subject, kind: Kind, max_boxes: int) -> str:
    """Return a picture as text: a caption a line; for detail and reasoning a blank line and a box a line."""
    captions = "\n".join(subject.captions)
    if kind not in _WITH_BOXES or not subject.boxes:
        return captions
    largest = sorted(range(len(subject.boxes)), key=lambda i: (-subject.boxes[i].area, i))[:max_boxes]
    return captions + "\n\n" + "\n".join(subject.boxes[i].line() for i in sorted(largest))


def reads_boxes(kind: Kind) -> bool:
    """Say whether prompts of this kind show boxes."""
    return kind in _WITH_BOXES


def load_prompts(folder: str | None, kinds: list[Kind]) -> dict[Kind, Prompts]:
    """Read the prompts of these kinds from a folder, or the package's own.

    Raises:
        InputError: a file is missing, empty, or not UTF-8; names it.
    """
    return {kind: _load(folder or OWN, kind) for kind in KINDS if kind in kinds}


def _load(folder: str, kind: Kind) -> Prompts:
    place = join(folder, kind)
    if not exists(place) and kind in _ALSO:
        place = join(folder, _ALSO[kind])
    captions = list_files(place, "_caps.txt")
    pairs = tuple((_text(p), _text(p.removesuffix("_caps.txt") + "_conv.txt")) for p in captions)
    questions: tuple[str, ...] = ()
    if kind == "detail":
        named = join(place, "questions.txt")
        # LLaVA's folder has none: its questions are in the paper
        text = _text(named if exists(named) else join(OWN, kind, "questions.txt"))
        questions = tuple(line.strip() for line in text.splitlines() if line.strip())
    return Prompts(kind, _text(join(place, "system_message.txt")), pairs, questions)


def _text(path: str) -> str:
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path!r} is not UTF-8 (byte {error.start}). Save it as such.") from error
    if not text:
        raise InputError(f"{path!r} is empty: a prompt has a text.")
    return text
