"""Answers of ten people: EvalAI's normalised answers, and the mean over ten leave-one-outs (VQAv2, TextVQA, VizWiz).

Source: `m4c_evaluator.py` of LLaVA (spec: LLaVA §7), held against hand-worked answers in `tests/evaluate/test_vqa.py`.
"""

import re
from collections import Counter
from collections.abc import Sequence

from ..pool.records import Record
from ..pool.refusals import RefusedError
from .benchmark import SHORT, Answered, Benchmark, Metrics

_PERIOD, _PEOPLE = re.compile(r"\.(?!\d)"), 10
_ARTICLES = {"a", "an", "the"}
_SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_SPELLED)} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_WHOLE = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd
where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll
y'all'd've you'd you'd've you'll you're you've
"""
# a contraction that lacks one of its apostrophes gets it back; the last one is the list's own slip
_CONTRACTIONS = {w[:i] + w[i + 1 :]: w for w in re.findall(r"\S+", _WHOLE) for i, c in enumerate(w) if c == "'"} | {
    "somebody'd": "somebodyd"
}


def evalai(text: str, compat: bool = True) -> str:
    """Return an answer as EvalAI's processor leaves it: "The cat's 2 dogs." is "cat 's 2 dogs".

    `compat`: as published, where `re.UNICODE` is passed in the place of a count, so that at most 32 full stops go.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside_space else " ")
    plain = _PERIOD.sub("", plain, count=int(re.UNICODE) if compat else 0)
    words = (_NUMBERS.get(w, w) for w in plain.split())
    return " ".join(_CONTRACTIONS.get(w, w) for w in words if w not in _ARTICLES)


def soft_score(answer: str, people: Sequence[str]) -> float:
    """Return the mean, over leaving out each of the people once, of min(1, matches among the others / 3)."""
    counts = Counter(map(evalai, people))
    same = counts[evalai(answer)]
    if not same:
        return 0.0
    n = len(people)
    # who is left out is one of those who said so, or is not
    return (same * min(1.0, (same - 1) / 3) + (n - same) * min(1.0, same / 3)) / n


def commonest(people: Sequence[str]) -> str:
    """Return the answer that most gave, as the first of them wrote it; the earliest of several."""
    counts = Counter(map(evalai, people))
    return max(people, key=lambda a: counts[evalai(a)])


class TenAnswers(Benchmark):
    """A word or phrase, scored by how many of ten people said the same: `extra["answers"]`.

    Where only the benchmark's server knows them, `extra["hidden"]` is true and no score is claimed.
    """

    suffix = SHORT

    def score(self, answer: str, record: Record) -> float:
        """Return 0 to 1."""
        return 0.0 if record.extra.get("hidden") else soft_score(answer, record.extra["answers"])

    def check(self, record: Record) -> None:
        """Refuse a record without ten answers that are texts."""
        if not record.extra.get("hidden"):
            people_of(record.extra.get("answers"))

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the mean score, or none where the answers are hidden."""
        hidden = sum(bool(r.record.extra.get("hidden")) for r in rows)
        if hidden:
            return Metrics(
                "accuracy", None, {}, [f"the answers to {hidden:,} questions are hidden: no score is claimed"]
            )
        return Metrics("accuracy", sum(r.score for r in rows) / len(rows))


def people_of(answers: object) -> list[str]:
    """Return ten people's answers, of texts or of VQA's objects with an `answer`.

    Raises:
        RefusedError: they are not ten texts.
    """
    listed = answers if isinstance(answers, list) else []
    texts = [a.get("answer") if isinstance(a, dict) else a for a in listed]
    if len(texts) != _PEOPLE or not all(isinstance(t, str) for t in texts):
        raise RefusedError("unscorable", f"answers are not ten texts: {answers!r:.60}")
    return [str(t) for t in texts]
