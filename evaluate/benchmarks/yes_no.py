"""Yes or no, read as POPE reads it; the first answer of every record must be one of them."""

from ...pool.records import Record
from ...pool.refusals import RefusedError
from ..benchmark import SHORT, Benchmark, reference
from ..metrics import normalise, yes_or_no


class YesNo(Benchmark):
    """Any answer counts as yes or no (`metrics.yes_or_no`)."""

    name, suffix = "yes_no", SHORT

    def score(self, answer: str, record: Record) -> float:
        """Return 1 or 0."""
        return float(yes_or_no(answer) == normalise(reference(record)))

    def check(self, record: Record) -> None:
        """Refuse a record whose answer is neither: no reading of an answer could be right."""
        if normalise(reference(record)) not in ("yes", "no"):
            raise RefusedError(
                "unscorable",
                f"yes_no wants yes or no as the record's answer, not {reference(record)!r:.60}; "
                "score such rows with exact_match or short_answer.",
            )


BENCHMARK = YesNo
