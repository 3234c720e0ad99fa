"""Pick rules: how scores become picks, whatever scored them. One file each in `rules/`, found as selectors are.

A rule file ends in `RULE = ItsClass`. `Ruled` is a selector whose own pick gives way to a rule. Axes: N rows, T targets,
B rows picked.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..store import config as settings
from ..store.arrays import Array
from ..store.errors import InputError, suggest
from ..store.features import match_rows
from ..store.scan import classes_of, modules_of, refuse_lacking
from . import registry
from .protocol import ScoreMeans, Selector
from .ranked import NoSettings
from .rows import columns_of, matrix_of, picks_table
from .view import View

HERE = Path(__file__).parent / "rules"
VARIABLE = "VINNOW_RULES"
# what rows may be grouped by: what SCORES call their group (the target that decided, a stratum), or a column of the pool
By = Literal["group", "source", "task", "has_image"]


@dataclass(frozen=True)
class Candidates:
    """Scored rows by id, ascending: `scores_NT` against each target (T = 1 where a method has one score a row)."""

    ids_N: Array
    scores_NT: Array
    group_N: Array
    column: Callable[[str], Array]

    def groups(self, by: By) -> Array:
        """Return each row's group as a number [N]; those of a column are numbered by its values in their order."""
        if by == "group":
            return self.group_N
        return np.unique(self.column(by).astype(str), return_inverse=True)[1]


@dataclass(frozen=True)
class Taken:
    """Positions among the candidates [B], in the order of picking, and what PICKS say of each: `group` and `score` [B]."""

    positions_B: Array
    group_B: Array
    score_B: Array


class Rule(ABC):
    """A pick rule. `each_target`: it reads each row's score against every target, not the one that a method made of them.

    Budgets are met exactly, ties go to the smaller id, and nothing depends on the order in which rows arrive.
    """

    name: ClassVar[str]
    each_target: ClassVar[bool] = False
    Config: ClassVar[type[settings.Config]] = NoSettings

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def pick(self, candidates: Candidates, budget: int) -> Taken:
        """Return the rows that it takes.

        Raises:
            InputError: the budget is below 1, or above the rows.
        """


class Ruled:
    """A selector that scores as `base` does, and picks by a rule; `on` a view before it picks."""

    # what a rule takes last need not score below what it passed over
    score_means: ClassVar[ScoreMeans] = "order"

    def __init__(self, base: Selector, rule: Rule, view: View | None = None) -> None:
        self.base, self.rule, self.view = base, rule, view
        self.name, self.needs, self.seeded = base.name, base.needs, base.seeded
        self.Config, self.config = base.Config, base.config

    def on(self, view: View) -> "Ruled":
        """Return it with the view whose columns its rule may group by."""
        return Ruled(self.base, self.rule, view)

    def score(self, view: View, seed: int) -> pa.Table:
        """Return SCORES: the method's, or one row a sample and target where the rule wants those."""
        return self.base.score_targets(view, seed) if self.rule.each_target else self.base.score(view, seed)  # type: ignore[attr-defined]

    def pick(self, scores: pa.Table, budget: int, seed: int) -> pa.Table:
        """Return what the rule takes as PICKS."""
        if self.rule.each_target:
            ids_N, scores_NT = matrix_of(scores)
            group_N = np.zeros(len(ids_N), np.int64)
        else:
            ids, group, score = columns_of(scores)
            order = np.argsort(ids, kind="stable")
            ids_N, scores_NT, group_N = ids[order], score[order][:, None], group[order]
        taken = self.rule.pick(Candidates(ids_N, scores_NT, group_N, lambda n: self._column(n, ids_N)), budget)
        ids_B = ids_N[taken.positions_B]
        return picks_table(ids_B, taken.group_B, taken.score_B, self.name, budget, seed)

    def _column(self, name: str, ids_N: Array) -> Array:
        assert self.view is not None, "a rule that groups by a column picks on a view"
        return self.view.column(name)[match_rows(self.view.ids, ids_N, "scores")]


# what scores and picks
Picker = Selector | Ruled


def names() -> list[str]:
    """List the rules' names."""
    return sorted(_rules(os.environ.get(VARIABLE, "")))


@dataclass(frozen=True)
class Facts:
    """What a list of rules says of one: `about` is its class's first sentence, `fields` those of its config."""

    name: str
    each_target: bool
    about: str
    fields: list[str]


def facts() -> list[Facts]:
    """Return the facts of every rule, by name."""
    kinds = _rules(os.environ.get(VARIABLE, ""))
    abouts = {name: " ".join((kind.__doc__ or "").split("\n\n")[0].split()) for name, kind in kinds.items()}
    return [Facts(n, kinds[n].each_target, abouts[n], list(kinds[n].Config.model_fields)) for n in names()]


def make_rule(name: str, config: dict[str, Any] | None = None, where: str = "") -> Rule:
    """Build a rule from plain config values; `where`: where they stand, for messages.

    Raises:
        InputError: unknown rule or field (names the nearest one); a rule file does not fit.
    """
    kinds = _rules(os.environ.get(VARIABLE, ""))
    if name not in kinds:
        raise InputError(f"unknown pick rule {name!r}{suggest(name, kinds)}")
    return kinds[name](kinds[name].Config.parse(config or {}, where or f"rule {name}"))


def with_rule(selector: Selector, rule: str, config: dict[str, Any] | None = None, where: str = "") -> Ruled:
    """Return a selector that picks by a rule of this name; `where`: where the config's values stand, for messages.

    Raises:
        InputError: an unknown rule or field; scores that are no worth of a row; no score for each target; a field of the
            selector's that the rule takes the place of.
    """
    chosen = make_rule(rule, config, where)
    if registry.score_means(selector) == "order":
        raise InputError(
            f"selector {selector.name!r} takes no pick rule: its scores are places in its own order of picking, and say "
            "nothing of a row by itself."
        )
    if chosen.each_target and not hasattr(selector, "score_targets"):
        able = [n for n in registry.names() if hasattr(registry.make(n), "score_targets")]
        raise InputError(
            f"the rule {rule!r} wants each row's score against every target; {selector.name!r} has one score a row. "
            f"Those that have them: {', '.join(able)}."
        )
    replaced = getattr(selector, "replaced_by_rule", ())
    said = sorted(set(replaced) & selector.config.model_fields_set)
    if said and (chosen.each_target or getattr(selector.config, "aggregate", None) == "vote"):
        raise InputError(
            f"selector {selector.name!r}: the rule {rule!r} takes the place of {', '.join(said)}; leave it out."
        )
    return Ruled(selector, chosen)


@cache
def _rules(extra: str) -> dict[str, type[Rule]]:
    package = __name__.rsplit(".", 1)[0]
    return classes_of(modules_of(f"{package}.rules", HERE, VARIABLE), "RULE", "pick rule", _check)


def _check(kind: type[Rule], file: Path) -> None:
    refuse_lacking(kind, ("name", "each_target", "Config", "pick"), file, "select/rule.py")
