"""The answers of two choices to the same questions, side by side: what every interval and test here works on.

A cluster is a picture with all questions about it: they are right and wrong together, so they are drawn together. Axes: N
questions, ascending by name; S seeds of training (one EVALS table each).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...store.arrays import Array
from ...store.errors import DuplicateRowsError, InputError

# columns that say which question a row is, and which picture it is about
_SAME = ["sample", "cluster"]


@dataclass(frozen=True)
class Scores:
    """Scores [S, N] of one choice; `keys_SN`: what each seed's table says is the cluster, None where it does not know."""

    names_N: Array
    scores_SN: Array
    keys: tuple[Array, ...]
    benchmark: str

    @property
    def mean_N(self) -> Array:
        """Each question's mean over the seeds."""
        return self.scores_SN.mean(0)


@dataclass(frozen=True)
class Pairs:
    """Scores of both sides [S, N] and [T, N]; `cluster_N`: 0 … C − 1; `unknown`: questions whose picture is not known."""

    names_N: Array
    first_SN: Array
    second_TN: Array
    cluster_N: Array
    unknown: int

    @property
    def clusters(self) -> int:
        """C."""
        return int(self.cluster_N.max()) + 1

    @property
    def seeds(self) -> tuple[int, int]:
        """S and T."""
        return len(self.first_SN), len(self.second_TN)


def read_scores(tables: Sequence[pa.Table]) -> Scores:
    """Return the scores of EVALS tables, one per seed of the same choice.

    Raises:
        InputError: no table or no question; the tables are of other questions or benchmarks; a score is no number.
        DuplicateRowsError: a question is there twice in one of them.
    """
    if not tables:
        raise InputError("a comparison needs at least one EVALS table on each side.")
    names_N, scores, keys = np.zeros(0, np.str_), [], []
    # a sweep's tables hold the same questions in the same order: only one is sorted
    order, before = np.zeros(0, np.int64), tables[0]
    for number, table in enumerate(tables):
        if not table.num_rows:
            raise InputError("an EVALS table holds no question: there is nothing to compare.")
        if not number or not table["sample"].equals(before["sample"]):
            asked = np.array(table["sample"].to_pylist(), dtype=np.str_)
            order = np.argsort(asked, kind="stable")
            ranked = asked[order]
            if (ranked[1:] == ranked[:-1]).any():
                raise DuplicateRowsError("an EVALS table holds a sample twice: give one run a table.")
            if number and not np.array_equal(names_N, ranked):
                raise InputError(f"runs to be averaged were asked other samples: {_differ(names_N, ranked)}")
            names_N = ranked
        scores.append(_numbers(table)[order])
        alike = number and _clustered(table) and _clustered(before) and table.select(_SAME).equals(before.select(_SAME))
        keys.append(keys[-1] if alike else _keys(table)[order])
        before = table
    benchmarks = sorted({b for table in tables for b in table["benchmark"].unique().to_pylist()})
    return Scores(names_N, np.stack(scores), tuple(keys), ", ".join(benchmarks))


def pair(first: Sequence[pa.Table], second: Sequence[pa.Table]) -> Pairs:
    """Return two choices side by side, question by question.

    Raises: as `read_scores`; InputError: the sides were asked other questions, or were scored by other benchmarks.
    """
    ours, theirs = read_scores(first), read_scores(second)
    if not np.array_equal(ours.names_N, theirs.names_N):
        raise InputError(f"paired comparison: {_differ(ours.names_N, theirs.names_N)} Answer one test pool with both.")
    if ours.benchmark != theirs.benchmark:
        raise InputError(
            f"these were scored by other benchmarks ({ours.benchmark} against {theirs.benchmark}): their scores are no "
            "pairs."
        )
    cluster_N, unknown = merge_clusters([*ours.keys, *theirs.keys])
    return Pairs(ours.names_N, ours.scores_SN, theirs.scores_SN, cluster_N, unknown)


def merge_clusters(keys: Sequence[Array]) -> tuple[Array, int]:
    """Return (cluster [N] as 0 … C − 1, how many questions have no key).

    Together is what any of the lists of keys [N] has together; a question whose picture none knows is a cluster of its own.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(keys[0])
    unique: list[Array] = []
    for key_N in keys:
        if not any(key_N is other_N or np.array_equal(key_N, other_N) for other_N in unique):
            unique.append(key_N)
    rows, columns, width = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], n
    known_N = np.zeros(n, bool)
    for key_N in unique:
        has_N = np.array([k is not None for k in key_N], bool)
        kinds, number = np.unique(key_N[has_N].astype(np.str_), return_inverse=True)
        rows.append(np.flatnonzero(has_N))
        columns.append(width + number)
        width += len(kinds)
        known_N |= has_N
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row), np.int8), (row, column)), shape=(width, width))
    labels = connected_components(graph, directed=False)[1][:n]
    return np.unique(labels, return_inverse=True)[1], int((~known_N).sum())


def _clustered(table: pa.Table) -> bool:
    # a table of before there were clusters has no such column
    return "cluster" in table.column_names


def _numbers(table: pa.Table) -> Array:
    scores_N = table["score"].to_numpy().astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(scores_N))
    if len(bad):
        sample = table["sample"][int(bad[0])].as_py()
        raise InputError(f"{len(bad)} of {len(scores_N)} scores are no numbers (NaN or infinite), first of {sample!r}.")
    return scores_N


def _keys(table: pa.Table) -> Array:
    known = table["cluster"].to_pylist() if _clustered(table) else [None] * table.num_rows
    return np.array([*known, None], object)[:-1]


def _differ(ours: Array, theirs: Array) -> str:
    common = len(np.intersect1d(ours, theirs))
    alone = np.concatenate([np.setdiff1d(ours, theirs), np.setdiff1d(theirs, ours)])
    return f"{len(ours)} against {len(theirs)} samples, {common} in common; {str(alone[0])!r} is in one of them alone."
