"""From a model's text to a record's turns: its form, and what a text that claims to see the picture must not say."""

import re

from .config import Kind

# why an answer becomes no record; beside those of the endpoint (`evaluate/remote/reply.py`)
REASONS = {
    "bad_subject": "the picture's row in the source cannot be read",
    "no_captions": "the picture has no captions, so nothing is known of it",
    "bad_form": "the answer has not the form that was asked for",
    "quotes_coordinates": "the answer speaks of boxes or quotes their numbers",
    "talks_of_captions": "the answer speaks of captions or descriptions, which whoever sees the picture knows nothing of",
    "wrong_length": "an answer has fewer or more words than allowed",
    "image_mark": "the text holds <image>, which marks a picture's place",
}
_NUMBERS = re.compile(
    r"\b[01]?\.\d{3}\b"  # as prompts have them
    r"|[\[(]\s*\d*\.\d+\s*,\s*\d*\.\d+"  # (0.1, 0.25 …
    r"|\bbounding[ -]box|\bcoordinates\b",
    re.I,
)
_CAPTIONS = re.compile(
    r"\bcaptions?\b"
    r"|\b(?:provided|given|supplied|above|following) (?:\w+ )?(?:descriptions?|sentences?|texts?|contexts?|information)\b"
    r"|\b(?:descriptions?|sentences?|texts?|contexts?|information) (?:\w+ )?(?:provided|given|supplied|above)\b"
    r"|\b(?:according to|based on|(?:described|mentioned|stated) in) the (?:descriptions?|sentences?|text|context)\b"
    r"|\bthe descriptions? (?:\w+ )?(?:says?|mentions?|states?|indicates?|suggests?)\b",
    re.I,
)
_MARK = re.compile(r"^\s*={3,}\s*$", re.M)
_LABEL = re.compile(r"^\s*(?:\*\*)?(question|answer)(?:\*\*)?\s*:(?:\*\*)?\s*(.*)$", re.I | re.S)

Turns = list[tuple[str, str]]


class AnswerError(Exception):
    """An answer that becomes no record; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(detail)
        self.reason = reason


def turns_of(kind: Kind, text: str, question: str = "") -> Turns:
    """Return (question, answer) pairs; `question`: what a detailed description answers.

    Raises:
        AnswerError: `bad_form`.
    """
    if kind == "detail":
        if _MARK.search(text) or _LABEL.match(text):
            raise AnswerError("bad_form", "paragraphs were asked for, not questions and answers")
        return [(question, text.strip())]
    pairs = _pairs(text)
    if kind == "reasoning" and len(pairs) != 1:
        raise AnswerError("bad_form", f"one question and its answer were asked for, not {len(pairs)}")
    return pairs


def check(turns: Turns, words: tuple[int, int] | None) -> None:
    """Refuse what must not be in a record.

    Raises:
        AnswerError: says which text, and where in it.
    """
    for question, answer in turns:
        for text in (question, answer):
            if "<image>" in text:
                raise AnswerError("image_mark", _around(text, text.index("<image>")))
            for reason, pattern in (("quotes_coordinates", _NUMBERS), ("talks_of_captions", _CAPTIONS)):
                if (match := pattern.search(text)) is not None:
                    raise AnswerError(reason, _around(text, match.start()))
        count = len(answer.split())
        if words is not None and not words[0] <= count <= words[1]:
            raise AnswerError("wrong_length", f"{count} words, {words[0]} to {words[1]} are allowed: {answer[:50]!r}")


def _pairs(text: str) -> Turns:
    pieces = [p for p in _MARK.split(text) if p.strip()]
    labelled = [_LABEL.match(piece) for piece in pieces]
    for number, (match, piece) in enumerate(zip(labelled, pieces, strict=True)):
        wanted = ("question", "answer")[number % 2]
        if match is None or match[1].lower() != wanted or not match[2].strip():
            raise AnswerError("bad_form", f"piece {number + 1} is no {wanted}: {piece.strip()[:60]!r}")
        if re.search(r"^\s*(?:question|answer)\s*:\s*$", match[2], re.I | re.M):
            raise AnswerError("bad_form", f"piece {number + 1} holds several, without === between them")
    if not pieces or len(pieces) % 2:
        raise AnswerError("bad_form", "the last question has no answer" if pieces else "there is no question")
    texts = [match[2].strip() for match in labelled if match is not None]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _around(text: str, place: int) -> str:
    return repr(text[max(0, place - 30) : place + 50])
