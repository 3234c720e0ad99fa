"""The columns of `RUN/answer.csv` and `RUN/answer.parquet`: name, type, what it is; docs/answer.md is made of these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...evaluate.statistics.interval import Interval
from .answer import Answer

TEXT, WHOLE, REAL, YES = pa.string(), pa.int64(), pa.float64(), pa.bool_()


@dataclass(frozen=True)
class Column:
    """One column: `of` takes it from a row of the answer; None where it is not known or does not apply."""

    name: str
    kind: pa.DataType
    what: str
    of: Callable[[Answer], Any]


def _against(take: Callable[[Any], Any]) -> Callable[[Answer], Any]:
    return lambda a: None if a.row.against_random is None else take(a.row.against_random)


def _share(take: Callable[[Interval], float]) -> Callable[[Answer], Any]:
    return lambda a: None if a.row.relative is None else take(a.row.relative.average)


def _c(take: Callable[[Interval], float]) -> Callable[[Answer], Any]:
    return lambda a: None if a.c is None else take(a.c)


def _part(name: str) -> Callable[[Answer], Any]:
    return lambda a: a.price.parts.get(name)


_GAP = "accuracy less that of random at the same budget and fine-tune"
COLUMNS = (
    Column("selector", TEXT, "the selector's label; `full` is training on everything", lambda a: a.row.selector),
    Column("rule", TEXT, "the pick rule in place of the method's own; empty where it is its own", lambda a: a.rule),
    Column("budget", TEXT, "as it was asked for: a share of the pool or a number of rows", lambda a: a.row.budget),
    Column("variant", TEXT, "which of several fine-tunes; empty where there is one", lambda a: a.row.variant),
    Column("rows", WHOLE, "rows that were trained on", lambda a: a.row.rows),
    Column("seeds", WHOLE, "trainings that are averaged", lambda a: a.row.seeds),
    Column("questions", WHOLE, "test questions of each", lambda a: a.row.questions),
    Column("pictures", WHOLE, "pictures that they are about; one without counts as one", lambda a: a.row.clusters),
    Column("accuracy", REAL, "mean score over questions and seeds, 0 to 1", lambda a: a.row.accuracy.estimate),
    Column("accuracy_low", REAL, "lower end of its 95 % interval", lambda a: a.row.accuracy.low),
    Column("accuracy_high", REAL, "upper end", lambda a: a.row.accuracy.high),
    Column("against_random", REAL, _GAP, _against(lambda c: c.difference.estimate)),
    Column("against_random_low", REAL, "lower end of its 95 % interval", _against(lambda c: c.difference.low)),
    Column("against_random_high", REAL, "upper end", _against(lambda c: c.difference.high)),
    Column("error", REAL, "its standard error", _against(lambda c: c.sure.error)),
    Column("p", REAL, "chance of so large a difference without any, two-sided", _against(lambda c: c.p)),
    Column(
        "p_holm", REAL, "the same, adjusted for all comparisons of the table (Holm)", _against(lambda c: c.p_adjusted)
    ),
    Column("comparisons", WHOLE, "how many those are", _against(lambda c: c.comparisons)),
    Column("verdict", TEXT, "better, worse or cannot tell", _against(lambda c: c.verdict)),
    Column(
        "detectable",
        REAL,
        "the smallest difference that 8 of 10 such comparisons would have told, at the level of Holm's first step",
        _against(lambda c: c.detectable),
    ),
    Column("relative", REAL, "per cent of the score of training on everything", _share(lambda i: i.estimate)),
    Column("relative_low", REAL, "lower end of its 95 % interval", _share(lambda i: i.low)),
    Column("relative_high", REAL, "upper end", _share(lambda i: i.high)),
    Column("train_s", REAL, "T_sub: device-seconds of training, mean over seeds", lambda a: a.price.training),
    Column("answer_s", REAL, "device-seconds of answering the test, mean over seeds", lambda a: a.price.answering),
    Column("proxy_s", REAL, "device-seconds of the trainings before choosing that it needs", _part("training")),
    Column("features_s", REAL, "device-seconds of the pool's features that it reads", _part("features")),
    Column("targets_s", REAL, "device-seconds of the targets' features that it reads", _part("targets")),
    Column("scoring_s", REAL, "seconds of scoring, one process, mean over seeds", _part("scoring")),
    Column("picking_s", REAL, "seconds of picking at this budget, one process, mean over seeds", _part("picking")),
    Column("scoring_cpu_s", REAL, "seconds that cores worked while scoring", lambda a: a.price.scoring_cpu),
    Column("select_s", REAL, "T_sel: the five together, as if the selector were alone", lambda a: a.price.alone),
    Column(
        "select_shared_s",
        REAL,
        "the same, each stage divided by the selectors of the run that need it",
        lambda a: a.price.split,
    ),
    Column("feature_bytes", WHOLE, "bytes of features on disk that it reads", lambda a: a.price.reads),
    Column("cost_s", REAL, "T_sel + T_sub", lambda a: a.price.whole),
    Column("cost_of_full", REAL, "(T_sel + T_sub) / T_full", lambda a: a.of_full),
    Column("c", REAL, "C = P_full / P_sub × (T_sel + T_sub) / T_full; under 1 it pays", _c(lambda i: i.estimate)),
    Column("c_low", REAL, "lower end of its 95 % interval, by that of P_sub / P_full", _c(lambda i: i.low)),
    Column("c_high", REAL, "upper end", _c(lambda i: i.high)),
    Column("train_s_per_row", REAL, "device-seconds a row, over all budgets of the selector", lambda a: a.per_row),
    Column(
        "break_even_rows",
        WHOLE,
        "the largest choice with T_sel + T_sub ≤ T_full; empty where there is none",
        lambda a: a.break_even,
    ),
    Column(
        "reuses",
        WHOLE,
        "trainings on a choice after which T_sel is saved; empty where it never is",
        lambda a: a.reuses,
    ),
    Column("on_front", YES, "nothing costs no more and reaches no less", lambda a: a.on_front),
    Column("dominated_by", TEXT, "the choice on the front that does; empty on it", lambda a: a.dominated_by),
    Column("unknown", TEXT, "why cells are empty; empty where all is known", lambda a: a.unknown),
)
ANSWER = pa.schema([pa.field(c.name, c.kind, nullable=c.kind != TEXT or c.name == "verdict") for c in COLUMNS])


def page() -> str:
    """Return the columns as a table of docs/answer.md."""
    lines = [f"| `{c.name}` | {_KINDS[c.kind]} | {c.what} |" for c in COLUMNS]
    return "\n".join(["| column | type | what it is |", "|---|---|---|", *lines]) + "\n"


_KINDS = {TEXT: "text", WHOLE: "whole number", REAL: "number", YES: "true or false"}
