"""Words in common with the reference, for answers of any length: held-out instruction data, where no two say it alike.

F1 of the words (SQuAD's, Rajpurkar et al. 2016, without its dropping of articles), case and punctuation aside; a text
without spaces (Chinese, Japanese) is compared by its characters.
"""

import re
from collections import Counter
from collections.abc import Sequence

from ...pool.records import Record
from ..benchmark import Answered, Benchmark, Metrics, reference

# a run of letters and digits is a word; of scripts that put no spaces, each character is one
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\u3040-\u30ff]|[^\W_]+")


def words(text: str) -> Counter[str]:
    """Return how often each word stands in a text."""
    return Counter(_WORD.findall(text.lower()) or text.split())


class WordF1(Benchmark):
    """The question as it stands; 1 is the reference's own words, in any order."""

    name = "word_f1"

    def score(self, answer: str, record: Record) -> float:
        """Return the harmonic mean of precision and recall of words."""
        said, right = words(answer), words(reference(record))
        both = sum((said & right).values())
        if not both:
            return float(not said and not right)
        return 2 * both / (sum(said.values()) + sum(right.values()))

    def aggregate(self, rows: Sequence[Answered]) -> Metrics:
        """Return the mean over rows."""
        return Metrics("word F1", sum(r.score for r in rows) / len(rows))


BENCHMARK = WordF1
