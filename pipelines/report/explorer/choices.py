"""What a run has chosen from its pool, as positions and codes: what every part of the explorer counts with.

Axes: N rows of the pool, K rows of a choice.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ....pool.reader import Pool
from ....store.arrays import Array
from .scores import Finder, Scored


@dataclass(frozen=True)
class Codes:
    """A name for each row: `code_N` says which of `names`, the commonest first; one beyond them is a row without."""

    names: list[str]
    code_N: Array


@dataclass(frozen=True)
class Choice:
    """A choice: `rows_K` are positions in the pool, in the order of picking."""

    selector: str
    budget: str
    seed: int
    rows_K: Array

    @property
    def name(self) -> str:
        """What tables and files call it."""
        return f"{self.selector} {self.budget} seed {self.seed}"


@dataclass(frozen=True)
class Chosen:
    """A pool and all that was chosen from it.

    `tokens_N` is None where ingest counted none; `clusters`: of a selector that made some, by its name.
    """

    finder: Finder
    source: Codes
    task: Codes
    pictured_N: Array
    letters_N: Array
    tokens_N: Array | None
    choices: list[Choice]
    scored: list[Scored]
    clusters: tuple[str, Array] | None = None

    @property
    def ids_N(self) -> Array:
        """The ids of the pool."""
        return self.finder.ids_N

    @property
    def rows(self) -> int:
        """How many rows the pool has."""
        return len(self.ids_N)

    def budgets(self) -> list[str]:
        """Return the budgets, in the order of the choices."""
        return list(dict.fromkeys(c.budget for c in self.choices))

    def of_budget(self, budget: str) -> list[Choice]:
        """Return the choices of a budget: each selector's first seed."""
        first: dict[str, Choice] = {}
        for choice in self.choices:
            if choice.budget == budget:
                first.setdefault(choice.selector, choice)
        return list(first.values())

    def scores_of(self, choice: Choice) -> Scored | None:
        """Return the scores that a choice was made of."""
        fits = (s for s in self.scored if s.selector == choice.selector and s.seed in (None, choice.seed))
        return next(fits, None)


def codes_of(values_N: Array) -> Codes:
    """Return names and numbers of a column of texts."""
    encoded = pa.array(values_N, pa.string()).dictionary_encode()
    names, code_N = encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
    order = np.argsort(-np.bincount(code_N, minlength=len(names)), kind="stable")
    place = np.empty(len(names), np.int64)
    place[order] = np.arange(len(names))
    return Codes([names[i] for i in order], place[code_N])


def chosen_of(pool: Pool, picks: list[tuple[str, str, int, Array]], finder: Finder, scored: list[Scored]) -> Chosen:
    """Put together what was chosen; `picks`: selector, budget, seed, and the ids in the order of picking."""
    choices = [
        Choice(s, b, seed, finder.rows(ids, f"picks of {s} at {b}").astype(np.int32)) for s, b, seed, ids in picks
    ]
    # where a method made clusters, its notes count them
    made_clusters = (s for s in scored if b'"clusters"' in s.footer.get(b"vinnow.notes", b""))
    clustered = next(made_clusters, None)
    return Chosen(
        finder,
        codes_of(pool.column("source")),
        codes_of(pool.column("task")),
        pool.has_image(),
        pool.column("n_chars"),
        _tokens(pool),
        choices,
        scored,
        None if clustered is None else (clustered.selector, clustered.group_N),
    )


def _tokens(pool: Pool) -> Array | None:
    if not pool.facts.get("tokenizer"):
        return None
    tokens = pool.column("n_tokens")
    return None if any(n is None for n in tokens) else tokens.astype(np.int64)
