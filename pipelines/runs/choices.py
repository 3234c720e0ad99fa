"""What a run's config chooses and trains on: each (selector, budget, seed), and a trial of every fine-tune of each."""

from dataclasses import dataclass

from .config import RunConfig

# the whole pool beside the choices
FULL, WHOLE = "full", "100%"
# what all choices are compared with, by its label
RANDOM = "random"


@dataclass(frozen=True)
class Choice:
    """Rows that are trained on: what a selector, by its label, takes for a budget ("10%", as configured) and a seed."""

    selector: str
    budget: str
    seed: int

    @property
    def key(self) -> str:
        """What a manifest calls its picks."""
        return f"{self.selector}|{self.budget}|{self.seed}"

    def trial(self, variant: str) -> str:
        """Return the name and folder of the trial that trains on it by a variant of the fine-tune ("": the only one)."""
        name = f"{self.selector}-{self.budget.replace('%', 'pct')}-s{self.seed}"
        return name + (f"-{variant}" if variant else "")


def picked(config: RunConfig) -> list[Choice]:
    """Return the choices that selectors make."""
    return [Choice(s.label, str(b), seed) for s in config.selectors for seed in config.seeds for b in config.budgets]


def trained_on(config: RunConfig) -> list[Choice]:
    """Return all choices that are trained on: what selectors pick, and the whole pool, if the sweep has it."""
    return picked(config) + [Choice(FULL, WHOLE, seed) for seed in config.seeds if config.sweep.full]


def trials(config: RunConfig) -> dict[str, tuple[Choice, str]]:
    """Return the trials by name: their choice and the variant of the fine-tune."""
    return {c.trial(v): (c, v) for c in trained_on(config) for v in config.finetune.by_name()}
