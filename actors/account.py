"""What a feature run has to do, and what became of its rows: parts that are missing, parts to try again, the account."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..pool.decode import is_readable
from ..pool.reader import Pool, ShardRef
from ..pool.records import Record
from ..store.cut import FOLDER as CUT
from ..store.cut import count_cut
from ..store.errors import InputError
from ..store.features import drop_damaged, shards_done
from ..store.files import join
from ..store.refusals import listing, refused_at, refused_tasks, to_try_again, usage_of
from ..store.usage import Usage
from .config import FeatureReport, FeatureSpec
from .pool import remaining

# threads that look whether pictures are back: on a network's file system each look waits
_LOOKERS = 16
# a task of a target set may lose so much before that is a failure, whatever the set as a whole lost
_MOST = 0.5


class LostRowsError(InputError):
    """Too many rows were refused; `report` says what was done."""

    def __init__(self, message: str, report: FeatureReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class Work:
    """What a run has to do. `places`: each part's name, in the pool's order, and which rows it is.

    `left`: by step, the parts that are missing or have rows to try again. `damaged`: by step, those of them that were
    there, and were not as they had been written.
    """

    places: dict[str, str]
    left: dict[int, list[str]]
    damaged: dict[int, list[str]] = field(default_factory=dict)

    @property
    def skipped(self) -> int:
        """How many parts are there, each once a step."""
        return sum(len(self.places) - len(names) for names in self.left.values())

    def items(self, spec: FeatureSpec) -> list[dict[str, Any]]:
        """Return what an actor is to do at the checkpoints of `spec`: the flow's parts, with the steps to do."""
        left = {key.checkpoint: set(self.left[key.checkpoint]) for key in spec.keys}
        todo = {name: ",".join(str(step) for step, names in left.items() if name in names) for name in self.places}
        return [{"part": n, "place": self.places[n], "todo": steps} for n, steps in todo.items() if steps]


def open_work(spec: FeatureSpec) -> Work:
    """Find what is missing, and what was refused for a picture that can be read by now.

    Raises:
        KeyMismatchError: the output folder holds features of another pool, model or recipe.
        InputError: it holds parts of another size; or pictures are to be read, and their root is not there.
    """
    damaged = {key.checkpoint: drop_damaged(spec.out, spec.config.name, key.checkpoint) for key in spec.keys}
    pool, shards, done = _open(spec)
    back = _Back(spec, pool)
    left = {}
    for step, have in done.items():
        again = back.shards(step, {n: shards[n] for n in have if n in shards})
        left[step] = remaining(f"{spec.out}: step {step}", list(shards), have, again)
    places = {name: pool.place(part) for name, part in shards.items()}
    work = Work(places, left, {step: names for step, names in damaged.items() if names})
    if work.items(spec):
        pool.check_images(spec.config.image_root)
        if spec.target_pool is not None:
            Pool(spec.target_pool).check_images(spec.config.target_image_root)
    return work


def shards_back(spec: FeatureSpec) -> set[str]:
    """Return the finished parts, at any checkpoint, that have rows whose pictures can be read by now.

    Raises:
        KeyMismatchError: the output folder holds features of another pool, model or recipe.
    """
    pool, shards, done = _open(spec)
    back = _Back(spec, pool)
    return {p for step, have in done.items() for p in back.shards(step, {n: shards[n] for n in have if n in shards})}


def _open(spec: FeatureSpec) -> tuple[Pool, dict[str, ShardRef], dict[int, set[str]]]:
    pool = Pool(spec.pool)
    shards = {p.name: p for p in pool.shards(spec.config.rows_per_part)}
    stored, name = spec.config.dtype, spec.config.name
    return pool, shards, {key.checkpoint: shards_done(spec.out, key, stored, name) for key in spec.keys}


class _Back:
    """Says which parts to compute anew: those of whose missing pictures some can be read now."""

    def __init__(self, spec: FeatureSpec, pool: Pool) -> None:
        self.spec, self.pool = spec, pool
        self.root = spec.config.image_root or pool.image_root
        self._seen: dict[int, bool] = {}

    def shards(self, step: int, done: dict[str, ShardRef]) -> set[str]:
        """Return the done parts of a step that have rows to try again."""
        listed = to_try_again(self.spec.out, self.spec.config.name, step)
        wanted = {name: ids for name, ids in listed.items() if name in done}
        self._look([i for ids in wanted.values() for i in ids if i not in self._seen])
        return {name for name, ids in wanted.items() if any(self._seen[i] for i in ids)}

    def _look(self, ids: list[int]) -> None:
        if not ids:
            return
        with ThreadPoolExecutor(_LOOKERS) as threads:
            self._seen |= dict(zip(ids, threads.map(self._readable, self.pool.take(ids)), strict=True))

    def _readable(self, record: Record) -> bool:
        return is_readable(self.root, record)


def damage_notes(work: Work) -> list[str]:
    """Return lines for the user on parts that are computed anew because they were damaged."""
    return [f"step {s}: damaged parts are computed anew: {', '.join(names)}" for s, names in work.damaged.items()]


def settle(report: FeatureReport, spec: FeatureSpec) -> None:
    """Fill in what became of the rows, each counted once for all checkpoints.

    Raises:
        LostRowsError: more than `max_refused` of the rows are lost, all of them, or most of a target task's.
    """
    feature, steps = spec.config.name, [k.checkpoint for k in spec.keys if k.checkpoint not in report.failed]
    pool = Pool(spec.pool)
    report.usage = usage_of(spec.out, [feature], pool.ids(), steps)
    report.refused = sum(report.usage.refused.values())
    cut = count_cut(spec.out, feature, {p.name for p in pool.shards(spec.config.rows_per_part)})
    if cut:
        listed = join(spec.out, CUT, feature)
        report.notes.append(
            f"{cut:,} rows lost a part of their answers at max_len {spec.config.max_len} (listed in {listed})"
        )
    report.notes += [f"{rows:,} rows ran by {way}" for way, rows in report.ran.items()]
    by_step = refused_at(spec.out, feature, steps)
    if len({frozenset(rows) for rows in by_step.values()}) > 1:
        counts = ", ".join(f"{len(rows):,} at step {step}" for step, rows in by_step.items())
        report.notes.append(
            f"not the same rows are refused at every checkpoint: {counts}; a row counts as refused at all"
        )
    if report.failed:  # their error is told first
        return
    try:
        report.usage.check(f"{feature} features in {spec.out}", spec.config.max_refused)
        if spec.targets:
            check_tasks(pool, spec.out, feature, spec.config.max_refused)
    except InputError as error:
        raise LostRowsError(str(error), report) from None


def check_tasks(pool: Pool, root: str, feature: str, max_refused: float) -> None:
    """See that no task of a target set lost all or most of its rows, by the refusals listed below `root` for `feature`.

    Raises:
        InputError: one did; names it, with reasons.
    """
    task_of = pool.column("task").tolist()
    for task, reasons in refused_tasks(root, feature).items():
        total = task_of.count(task)
        if total:
            usage = Usage(total - sum(reasons.values()), reasons, listing(root, [feature]))
            usage.check(f"target task {task!r}", max(max_refused, _MOST))
