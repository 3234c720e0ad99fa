"""LLaVA's short-answer prompt behind the question; correct is an answer that holds the reference as whole words."""

import re

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ..benchmark import SHORT, Benchmark, reference
from ..metrics import normalise

# a longer reference is a sentence, which no answer repeats word by word
MOST_WORDS = 10


def spaced(text: str) -> str:
    """Return the normalised text with single spaces."""
    return " ".join(normalise(text).split())


def holds(text: str, phrase: str) -> bool:
    """Say whether a phrase stands in a text as whole words: "5" is in "5 cats", not in "15", "3.5" or "5's"."""
    begins, ends = r"(?<!\w)(?<!\d[.,])(?<!\w['’])", r"(?!\w|[.,]\d|['’]\w)"
    return re.search(begins + re.escape(phrase) + ends, text) is not None


class Contains(Benchmark):
    """For models that answer in sentences: "It is a red bus." holds "red bus".

    What else the answer says is not read: "not a red bus" holds it too, and so does a list of all colours.
    """

    name, suffix = "contains", SHORT

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(holds(spaced(answer), spaced(reference(record))))

    def check(self, record: Record) -> None:
        """Refuse a record whose reference is no short answer: nothing could be right."""
        right = spaced(reference(record))
        if not right or len(right.split()) > MOST_WORDS:
            what = f"{self.name} wants 1 to {MOST_WORDS} words as the record's answer, not {reference(record)!r:.60}."
            raise RefusedError("unscorable", what)


BENCHMARK = Contains
