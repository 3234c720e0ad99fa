"""One question of ScienceQA, answered by a model and by a language model: what the two come to, by the paper's schemes.

Source: LLaVA §5.2. Letters are read as LLaVA's ScienceQA script reads them (`metrics.scienceqa_letter`). What it cannot
read is no answer; the released script of the schemes guesses in its place.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..metrics import scienceqa_letter
from .scheme_config import JUDGE


@dataclass(frozen=True)
class Outcome:
    """Letters, None where none could be read; `judged`: the judge's text, None where nobody was asked again.

    `reason`: why the endpoint brought nothing; then there is no letter. `unasked`: the model's evaluation refused the
    question, so that it is wrong whoever else could answer it.
    """

    model: str | None
    second: str | None
    second_answer: str
    judged: str | None
    letter: str | None
    reason: str | None = None
    unasked: bool = False

    @property
    def differs(self) -> bool:
        """Whether the two answered otherwise; no answer is other than any, and two of these are the same."""
        return self.model != self.second


def settled(scheme: str, model: str | None, second_answer: str, choices: int, judge: Callable[[], str]) -> Outcome:
    """Return what a scheme makes of two answers to a problem of so many `choices`; `judge` asks for the final text."""
    second = scienceqa_letter(second_answer, choices)
    if scheme != JUDGE:
        return Outcome(model, second, second_answer, None, second or model)
    if second == model:
        return Outcome(model, second, second_answer, None, model)
    text = judge()
    return Outcome(model, second, second_answer, text, scienceqa_letter(text, choices))


def counted(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Return how many questions went which way; every count is there, 0 too.

    `…_unread`: no letter could be read in the text; `lost`: the endpoint brought none; `unasked`: nobody was asked.
    """
    counts = Counter(dict.fromkeys(("model_unread", "second_unread", "both_unread", "differ", "judged"), 0))
    counts |= {"judge_unread": 0, "lost": 0, "unasked": 0}
    for o in outcomes:
        counts["unasked"] += o.unasked
        if o.unasked:
            continue
        counts["model_unread"] += o.model is None
        counts["lost"] += o.reason is not None
        if o.reason is None:
            counts["second_unread"] += o.second is None
            counts["both_unread"] += o.model is None and o.second is None
            counts["differ"] += o.differs
            counts["judged"] += o.judged is not None
            counts["judge_unread"] += o.judged is not None and o.letter is None
    return dict(counts)
