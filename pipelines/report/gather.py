"""A run's folder → `ReportData`: everything is read from disk, so a report can be made again at any time.

Axes: N rows, T checkpoints, C clusters. The pool's records are read only for the few that are shown.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from ...evaluate.clusters import with_clusters
from ...evaluate.metrics import majority_baseline
from ...pool.reader import Pool
from ...select import registry
from ...select.diagnostics import diagnose, without_feature
from ...select.protocol import ScoreMeans
from ...select.rows import read_notes
from ...select.run import picks_file
from ...store.arrays import Array
from ...store.features import FeatureSet, exists_any, match_rows
from ...store.files import exists, join, list_files, open_fs
from ...store.manifest import read_stage
from ...store.reading import reading, with_fields
from ...store.tables import EVALS, PICKS, REFUSED, read_rows
from ..runs.choices import FULL, picked, trials
from ..runs.config import POOLS, RunConfig, SelectorSection, parsed, saved_run
from ..runs.stages import stages_of
from ..runs.trial import read_result
from .about import about, run_facts
from .composition import compose
from .costs import gather_costs
from .data import Gallery, Picked, ReportData, Shown, Similarity, Stage, Trajectories, Trial
from .explorer.choices import Codes, codes_of
from .explorer.gathering import explore, read_chosen, section_of
from .explorer.scores import Finder, Scored
from .hours import held

CARDS = 8
# seeds of a choice that are read: of many, the first ones
SEEDS = 3


def gather(run_dir: str, title: str = "vinnow") -> ReportData:
    """Read what a run has left so far; what is not there yet stays empty, and the report says so."""
    run = saved_run(run_dir) if exists(join(run_dir, "run.json")) else None
    config = None if run is None else parsed(run, run_dir)
    results = results_of(run_dir, config)
    data = ReportData(title=title, refused=_refused(run_dir), trials=_trials(run_dir, results))
    _add_run(run_dir, data, (run, config), results)
    if data.trials:
        data.majority = majority_baseline(data.trials[0].evals)
    if not exists(join(run_dir, "pool", "pool.json")):
        return data
    pool = Pool(join(run_dir, "pool"))
    picks = read_picks(run_dir, config, results)
    chosen = read_chosen(run_dir, pool, config, picks)
    data.pool_tasks = _counts(chosen.task, slice(None))
    data.facts |= {"rows in the pool": f"{pool.rows:,}", "pool digest": pool.digest}
    first = [c for budget in chosen.budgets() for c in chosen.of_budget(budget)]
    data.picked = [Picked(c.selector, c.budget, _counts(chosen.task, c.rows_K)) for c in first]
    data.composition = compose(pool, {f"{c.selector} {c.budget}": c.rows_K for c in first})
    for selector in dict.fromkeys(c.selector for c in first):
        mine = {c.budget: picks[c.selector, c.budget, c.seed] for c in first if c.selector == selector}
        if said := without_feature(read_notes(next(iter(mine.values()))), pool.rows):
            data.notes[selector] = said
        choice = next(c for c in first if c.selector == selector)
        if (scored := chosen.scores_of(choice)) is not None:
            _add_selector(run_dir, data, pool, (section_of(config, selector), scored, chosen.finder), mine)
    data.explored = explore(run_dir, pool, chosen)
    return data


def _add_selector(
    run_dir: str,
    data: ReportData,
    pool: Pool,
    scored_by: tuple[SelectorSection, Scored, Finder],
    picks: dict[str, pa.Table],
) -> None:
    section, scored, finder = scored_by
    selector, scores = section.label, scored.table(pool.ids())
    data.diagnoses[selector] = diagnose(scores)
    method = section.method()
    needs = method.needs.called(section.reads)
    if "trajectory" in needs.features:
        if data.trajectories is None:
            data.trajectories = _trajectories(run_dir, needs.name_of("trajectory"), pool, (scores, picks))
        else:
            said = data.notes.get(selector, "")
            data.notes[selector] = f"{said} Its clusters are not drawn: those of a selector before it are.".strip()
    elif needs.features and section.pick is None:  # by a rule, the lowest score taken is no threshold
        # by SCORES, not PICKS: a vote's picks carry votes
        lowest = {
            budget: float(scored.best_N[finder.rows(table["sample_id"].to_numpy(), f"{selector} picks")].min())
            for budget, table in picks.items()
        }
        data.similarity.append(Similarity(selector, scores["score"].to_numpy(), lowest))
    budget = next(iter(picks))
    data.galleries.append(gallery_of(pool, (selector, budget), picks[budget], scores, registry.score_means(method)))


def _best(scores: pa.Table) -> tuple[Array, Array]:
    """Return (ids, best score of each over its targets)."""
    best = scores.group_by("sample_id").aggregate([("score", "max")])
    return best["sample_id"].to_numpy(), best["score_max"].to_numpy()


def gallery_of(pool: Pool, choice: tuple[str, str], picks: pa.Table, scores: pa.Table, means: ScoreMeans) -> Gallery:
    """Return the first taken and the worst passed over of a (selector, budget); rows with a picture where there are any."""
    taken = picks.sort_by("rank")
    seen = np.sort(pool.ids()[pool.has_image()])
    first_ids, first_score = taken["sample_id"].to_numpy(), taken["score"].to_numpy()
    if means == "worth":
        # equal scores stay as the method ranked them: by id, or by what settled a vote
        order = np.argsort(-first_score, kind="stable")
        first_ids, first_score = first_ids[order], first_score[order]
    ids, score = _best(scores)
    passed = ~_among(ids, np.sort(first_ids))
    ids, score = ids[passed], score[passed]
    last = np.lexsort((ids, score))
    shown = []
    for row_ids, row_scores in ((first_ids, first_score), (ids[last], score[last])):
        pictured = _among(row_ids, seen)
        keep = np.flatnonzero(pictured if pictured.any() else ~pictured)[:CARDS]
        shown.append(_shown(pool, row_ids[keep], row_scores[keep]))
    return Gallery(*choice, shown[0], shown[1], means, text_left_out=0 < len(seen) < pool.rows)


def _among(ids: Array, ranked: Array) -> Array:
    """Say of each id whether it is among `ranked`, which ascend."""
    if not len(ranked):
        return np.zeros(len(ids), bool)
    return ranked[np.minimum(np.searchsorted(ranked, ids), len(ranked) - 1)] == ids


def _shown(pool: Pool, ids: Array, scores: Array) -> list[Shown]:
    return [
        Shown(r.conversations, r.task, float(s), r.images[0] if r.images else None, pool.image_root)
        for r, s in zip(pool.take(ids), scores, strict=True)
    ]


def _trajectories(
    run_dir: str, name: str, pool: Pool, chosen: tuple[pa.Table, dict[str, pa.Table]]
) -> Trajectories | None:
    """`name`: the feature that was clustered; `chosen`: the scores, and the picks by budget."""
    root, (scores, picks) = join(run_dir, "features"), chosen
    if not exists_any(root, name):
        return None
    features = FeatureSet(root, name)
    steps = features.steps()
    clustered = scores.filter(pc.greater_equal(scores["group"], 0))
    ids, group = clustered["sample_id"].to_numpy(), clustered["group"].to_numpy()
    x_NT = np.empty((len(ids), len(steps)), np.float32)
    for t, step in enumerate(steps):
        # one number a row is kept of every batch, so that memory holds N × T floats and no vectors
        parts = [(b.ids, b.vec.sum(1)) for b in features.scan(step)]
        rows = match_rows(np.concatenate([i for i, _ in parts]), ids, f"{name} at step {step}")
        x_NT[:, t] = np.concatenate([x for _, x in parts])[rows]
    clusters = int(group.max()) + 1 if len(group) else 0
    quartiles_3CT = np.zeros((3, clusters, len(steps)), np.float32)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=clusters)
    for c, rows in enumerate(np.split(order, np.cumsum(sizes)[:-1])):
        if len(rows):
            quartiles_3CT[:, c] = np.quantile(x_NT[rows], (0.25, 0.5, 0.75), axis=0)
    taken = {
        budget: np.bincount(group[_among(ids, np.sort(table["sample_id"].to_numpy()))], minlength=clusters)
        for budget, table in picks.items()
    }
    sources = by_source(pool, ids, group, clusters)
    return Trajectories(steps, quartiles_3CT[1], quartiles_3CT[0], quartiles_3CT[2], sizes, taken, sources)


def by_source(pool: Pool, ids: Array, group: Array, clusters: int) -> dict[str, Array]:
    """Return each source's rows by cluster [C], the largest source first."""
    sources = codes_of(pool.column("source"))
    names, number_N = sources.names, sources.code_N[match_rows(pool.ids(), ids, "xmas scores")]
    counts_SC = np.zeros((len(names), clusters), np.int64)
    np.add.at(counts_SC, (number_N, group), 1)
    order = np.argsort(-counts_SC.sum(1), kind="stable")
    return {names[s]: counts_SC[s] for s in order if counts_SC[s].any()}


def _pictured(result: dict[str, Any]) -> float | None:
    share = result.get("image_accuracy")
    return None if share == result.get("accuracy") else share


def read_picks(
    run_dir: str, config: RunConfig | None, results: list[dict[str, Any]]
) -> dict[tuple[str, str, int], pa.Table]:
    """Return the picks by (selector, budget as asked for or in rows, seed): smallest budget first, then by seed.

    Those that the config names; without one, all that are there.
    """
    paths = list_files(join(run_dir, "picks"), ".parquet")
    asked: dict[str, str] = {}
    if config is not None:
        # of a thousand, a few are read
        few = set(sorted(config.seeds)[:SEEDS])
        asked = {picks_file(c.selector, c.budget, c.seed): c.budget for c in picked(config) if c.seed in few}
        paths = [p for p in paths if p.rsplit("/", 1)[1] in asked]
    tables = [(read_rows(p, PICKS), asked.get(p.rsplit("/", 1)[1], "")) for p in paths]
    labels = _labels(results)
    picks: dict[tuple[str, str, int], pa.Table] = {}
    there = ((t, budget, t["seed"][0].as_py()) for t, budget in tables if t.num_rows)
    for table, budget, seed in sorted(there, key=lambda one: (len(one[0]), one[2])):
        rows = table.num_rows
        label = labels.get(rows) or (budget if budget.endswith("%") else f"{rows:,} rows")
        picks[table["selector"][0].as_py(), label, seed] = table
    return picks


def _labels(results: list[dict[str, Any]]) -> dict[int, str]:
    """Return the budgets as they were asked for ("10%") by rows, from the finished trials."""
    return {int(r["rows"]): str(r["budget"]) for r in results if r["selector"] != FULL}


def results_of(run_dir: str, config: RunConfig | None) -> list[dict[str, Any]]:
    """Return the results of the trials that the config names; without one, of all that are there."""
    fs, inner = open_fs(join(run_dir, "sweep"))
    # only one level down: Ray keeps thousands of files below
    with reading(join(run_dir, "sweep"), "a folder"):
        folders = fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True))
    names = sorted(i.base_name for i in folders if i.type == pafs.FileType.Directory)
    named = names if config is None else trials(config)
    paths = [join(run_dir, "sweep", n, "result.json") for n in names if n in named]
    return [read_result(p) for p in paths if exists(p)]


def _trials(run_dir: str, results: list[dict[str, Any]]) -> list[Trial]:
    path = join(run_dir, "evals.parquet")
    if not exists(path):
        return []
    evals, test = read_rows(path, EVALS), join(run_dir, "test")
    if exists(join(test, "pool.json")):
        evals = with_clusters(evals, Pool(test))
    by_run, told = by_run_of(evals), []
    for r in results:
        if (answers := by_run.get(r["run"])) is not None:
            cells = (r["selector"], str(r["budget"]), r["seed"], r["rows"], r["train_seconds"])
            trained_as = str(r.get("same_as") or r["name"] or "")
            told.append(Trial(*cells, answers, r["variant"] or "", _pictured(r), trained_as))
    return told


def by_run_of(evals: pa.Table) -> dict[str, pa.Table]:
    """Return EVALS by run, in one pass; rows of a run that stand together, as a sweep leaves them, are not copied."""
    run_N = pc.dictionary_encode(evals["run"].combine_chunks())
    number_N = run_N.indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, number_N[1:] != number_N[:-1]]) if len(number_N) else np.zeros(0, int)
    if len(starts) > len(run_N.dictionary):
        order = np.argsort(number_N, kind="stable")
        evals, number_N = evals.take(pa.array(order)), number_N[order]
        starts = np.flatnonzero(np.r_[True, number_N[1:] != number_N[:-1]])
    names = run_N.dictionary.to_pylist()
    ends = np.r_[starts[1:], len(number_N)]
    return {names[number_N[a]]: evals.slice(a, b - a) for a, b in zip(starts.tolist(), ends.tolist(), strict=False)}


def _refused(run_dir: str) -> dict[str, pa.Table]:
    refused = {}
    for name in POOLS:
        if exists(path := join(run_dir, name, "refused.parquet")):
            refused[name] = read_rows(path, REFUSED)
    for name in ("features", "targets"):
        paths = list_files(join(run_dir, name, "refused"), ".parquet", recursive=True)
        if paths:
            refused[name] = pa.concat_tables([read_rows(p, REFUSED) for p in paths])
    return refused


def _add_run(
    run_dir: str, data: ReportData, saved: tuple[dict[str, Any] | None, RunConfig | None], results: list[dict[str, Any]]
) -> None:
    """Add the stages and, where the run saved its config, costs and what is said of the run itself."""
    run, config = saved
    kinds: dict[str, Any] = {"rows": int | None, "bytes": int | None, "notes": list[str] | None}
    kinds |= {"ran": dict[str, int] | None}
    records = [read_stage(p) for p in list_files(join(run_dir, "stages"), ".json")]
    stages = [] if config is None else stages_of(config)
    order = {stage.name: number for number, stage in enumerate(stages)}
    # what was made by an earlier config, and is no part of the run any more, is not told of
    records = [r for r in records if config is None or r.name in order]
    for record in records:
        path = join(run_dir, "stages", f"{record.name}.json")
        record.facts |= with_fields(record.facts, kinds, path, "stage's manifest", "Delete it and run again.")
        if record.name == "sweep":
            data.sweep = record.facts["notes"] or []
    records.sort(key=lambda r: (order.get(r.name, 0), r.name))
    for r in records:
        spent = held(stages, r, results)
        took = {"starts": r.starts, "last": r.last_seconds, "ran": r.facts.get("ran") or {}}
        data.stages.append(Stage(r.name, r.seconds, r.facts.get("rows"), r.facts.get("bytes"), spent, **took))
    data.costs = gather_costs(config, stages, records, results)
    if run:
        data.about, data.facts = about(run_dir, run), run_facts(run, records, data.stages)


def _counts(codes: Codes, rows: Any) -> dict[str, int]:
    """Return how many of some rows have each name, by name; without those of none."""
    counts = np.bincount(codes.code_N[rows], minlength=len(codes.names))
    return {name: int(n) for name, n in sorted(zip(codes.names, counts, strict=True)) if n}
