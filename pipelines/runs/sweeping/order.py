"""In which order trials run: what settles the most comes first.

Every verdict is one against random, and the whole pool is what shares are taken of: these come first, all seeds of them.
Then seed by seed, each selector once before any a second time: a sweep that is stopped can compare as many selectors as
possible with random at equal seeds. Inside a seed the dearest come first, so that with several at a time none ends alone.
"""

from ..choices import FULL, RANDOM
from ..config import RunConfig
from ..trial import Trial


def is_base(selector: str) -> bool:
    """Say whether others are held against this choice."""
    return selector in (RANDOM, FULL)


def in_order(config: RunConfig, trials: list[Trial]) -> list[Trial]:
    """Sort trials by what they settle."""
    rounds = {seed: number for number, seed in enumerate(config.seeds)}
    labels = {s.label: number for number, s in enumerate(config.selectors)}

    def place(trial: Trial) -> tuple[bool, int, int, int, str]:
        late = not is_base(trial.selector)
        return late, rounds[trial.seed], -trial.rows, labels.get(trial.selector, len(labels)), trial.name

    return sorted(trials, key=place)
