"""A run's folder → what the explorer shows: choices of all seeds, their scores, what they share, the sample and its map."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from ....pool.reader import Pool
from ....select import registry
from ....store.files import exists, join, open_fs
from ....store.names import is_taken
from ...runs.config import RunConfig, SelectorSection
from .cells import cells_of
from .choices import Chosen, chosen_of
from .mapped import map_of, source_of
from .overlap import Overlap, overlap_of
from .records import Explorer, explorer_of
from .sample import HELD, sample_of
from .scores import Finder, Scored, read_scored, scores_key
from .shares import Shares, shares_of


@dataclass(frozen=True)
class Explored:
    """Everything of the explorer."""

    rows: int
    # selector, budget, seed
    choices: list[tuple[str, str, int]]
    overlap: Overlap | None
    shares: list[Shares]
    explorer: Explorer


def read_chosen(
    run_dir: str, pool: Pool, config: RunConfig | None, picks: dict[tuple[str, str, int], pa.Table]
) -> Chosen:
    """Read the scores that the picks were made of, each file once; `picks` by selector, budget and seed."""
    finder = Finder(pool.ids())
    by_path: dict[str, Scored] = {}
    by_key: dict[bytes, Scored] = {}
    for selector, _, seed in picks:
        named = [(f"{selector}{f'-s{seed}' if seed else ''}.parquet", seed), (f"{selector}.parquet", None)]
        paths = [(join(run_dir, "scores", name), of_seed) for name, of_seed in named]
        path, of_seed = next(((p, s) for p, s in paths if p in by_path or exists(p)), ("", None))
        if not path or path in by_path:
            continue
        method = section_of(config, selector).method()
        called = (selector, of_seed if method.seeded else None, registry.score_means(method))
        # labels that differ in their pick rule alone have the same scores
        key = scores_key(path)
        same = by_key.get(key) if key else None
        by_path[path] = read_scored(path, finder, called) if same is None else same.called(*called)
        by_key[key] = by_path[path]
    told = [(*key, table.sort_by("rank")["sample_id"].to_numpy()) for key, table in picks.items()]
    return chosen_of(pool, told, finder, list(by_path.values()))


def section_of(config: RunConfig | None, selector: str) -> SelectorSection:
    """Return a selector's section of a config, by its label; of a run without one, that of its name."""
    sections = config.selectors if config else []
    return next((s for s in sections if s.label == selector), None) or SelectorSection(name=selector)


def explore(run_dir: str, pool: Pool, chosen: Chosen, held: int = HELD) -> Explored:
    """Compare the choices, draw the sample, and read its records."""
    root = join(run_dir, "features")
    source = source_of(root, _features(root), chosen.finder)
    sample = sample_of(chosen, None if source is None else source.readable, held)
    mapped = None if source is None else map_of(source, chosen.finder, sample.points_P)
    explorer = explorer_of(pool, chosen, cells_of(chosen), sample, mapped)
    names = [(c.selector, c.budget, c.seed) for c in chosen.choices]
    return Explored(chosen.rows, names, overlap_of(chosen), shares_of(chosen), explorer)


def _features(root: str) -> list[str]:
    """Return the names of the features that lie there."""
    fs, inner = open_fs(root)
    folders = fs.get_file_info(pafs.FileSelector(inner, allow_not_found=True))
    return sorted(f.base_name for f in folders if f.type == pafs.FileType.Directory and not is_taken(f.base_name))
