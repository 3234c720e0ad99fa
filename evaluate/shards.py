"""Shards of a test pool through the flow's actors, and joined again: what every evaluation does the same way.

`OUT/FOLDER/part-*.parquet` appear whole, so a rerun computes only what is missing. Every row of the pool ends in the joined
table or under `OUT/refused/FOLDER` with a reason.
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..actors.pool import Flow, Workers, remaining, run_shards
from ..models.check import checked_digest
from ..models.encoding import with_template
from ..models.folders import local_model
from ..pool.reader import Pool
from ..store.claim import check_out, claim
from ..store.errors import DamagedError, InputError, KeyMismatchError, MissingRowsError
from ..store.facts import read_fields
from ..store.files import exists, join, list_files, write_json
from ..store.meters import tell_parts
from ..store.reading import as_kind, parse_json
from ..store.refusals import read_refused, refused_shards
from ..store.tables import read_rows, write_rows
from ..store.usage import TRY_AGAIN, Usage
from .answering import FOOTER, Answerer
from .config import MATTERS, EvalConfig, EvalSpec

_SAVED = {
    **{"key": dict[str, Any], "parts": int, "skipped_parts": int, "rows": int, "refused": int, "seconds": float},
    "reasons": dict[str, int],
}
_ANEW = "Delete it and run again."
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measurement:
    """What an evaluation is: who answers, the files of its table and report, and the report's own fields of the table."""

    actor: type[Answerer]
    table: str
    report: str
    summary: Callable[[pa.Table, EvalSpec], dict[str, Any]]


def carry_out(spec: EvalSpec, measurement: Measurement, progress: Progress | None) -> dict[str, Any]:
    """Do an evaluation from its shards to its report; return the report's fields, those saved if it is finished.

    One that refused rows for their pictures' files is not finished for good: a rerun tries those shards again.

    Raises:
        KeyMismatchError: `out` holds another evaluation; lists what differs.
        BusyError: another process writes into it.
        MissingRowsError: a row of the pool is in neither table.
        InputError: every row is refused, or more than `max_refused` allows.
    """
    start = time.perf_counter()
    if (saved := done_before(spec, measurement)) is not None:
        return saved
    with claimed(spec, measurement):
        computed = compute_shards(spec, measurement.actor, progress)
        return reported(spec, measurement, computed, time.perf_counter() - start)


def done_before(spec: EvalSpec, measurement: Measurement) -> dict[str, Any] | None:
    """Return the saved report of an evaluation that has nothing left to do; None of another. Raises: as `carry_out`."""
    check_out(spec.out, [path for path in spec.inputs if path != own_pool(spec.out)])
    saved = finished(spec, measurement.report)
    if saved is not None and not TRY_AGAIN & saved.get("reasons", {}).keys():
        return saved | {"path": join(spec.out, measurement.table)}
    Pool(spec.config.pool).check_images(spec.config.image_root)
    return None


def claimed(spec: EvalSpec, measurement: Measurement) -> AbstractContextManager[None]:
    """Hold the output folder while the body writes into it. Raises: as `claim`."""
    actor = measurement.actor
    known = "|".join(map(re.escape, (actor.FOLDER, measurement.table, measurement.report)))
    return claim(spec.out, stage_of(actor), known)


def own_pool(out: str) -> str:
    """Return where an evaluation of official files keeps the pool that it makes of them: the one input inside of `out`."""
    return join(out if "://" in out else os.path.abspath(out), "pool")


def stage_of(actor: type[Answerer]) -> str:
    """Return the name by which an output folder is known as this measurement's."""
    return f"evaluate {actor.FOLDER}"


def reported(
    spec: EvalSpec, measurement: Measurement, computed: tuple[list[str], int], seconds: float
) -> dict[str, Any]:
    """Join the shards that were computed (`compute_shards`), and write and return the report. Raises: as `carry_out`."""
    actor, (shards, skipped) = measurement.actor, computed
    rows, refused = join_shards(spec, actor, shards, measurement.table)
    reasons = dict(Counter(refused["reason"].to_pylist()))
    asked = rows.num_rows - (refused.num_rows if actor.REFUSED_COUNT else 0)
    Usage(asked, reasons, join(spec.out, "refused", actor.FOLDER)).check("evaluate", spec.config.max_refused)
    fields = {
        "path": join(spec.out, measurement.table),
        "rows": rows.num_rows,
        "refused": refused.num_rows,
        "reasons": reasons,
        **measurement.summary(rows, spec),
        "parts": len(shards) - skipped,
        "skipped_parts": skipped,
        "seconds": round(seconds, 3),
        "key": spec.key,
    }
    write_json(join(spec.out, measurement.report), fields)
    return fields


def make_spec(config: EvalConfig, out: str, here: bool = False, digest: str | None = None) -> EvalSpec:
    """Resolve what is to be answered; its key holds all that answers depend on, model and pool by digest.

    `here`: in this process, without Ray. `digest`: the model's, where it was checked before.

    Raises:
        InputError: `here` with more actors than one.
    """
    if here and config.actors > 1:
        raise InputError(f"evaluate.actors {config.actors}: in one process there is one.")
    pool, out = (p if "://" in p else os.path.abspath(p) for p in (config.pool, out))
    model = local_model(config.model)
    config = with_template(config, model)
    key = {name: str(getattr(config, name)) for name in MATTERS}
    key |= {"model": digest or checked_digest(model), "pool": Pool(pool).digest}
    # workers start in other folders than the driver
    config = config.model_copy(update={"model": model, "pool": pool})
    return EvalSpec(config, out, key, "cuda" if config.gpus_per_actor else "cpu", here)


def finished(spec: EvalSpec, report: str) -> dict[str, Any] | None:
    """Return the saved report of a finished evaluation, with its shards counted as skipped; None if it is not finished.

    Raises:
        KeyMismatchError: it is another evaluation's; lists what differs.
    """
    path = join(spec.out, report)
    if not exists(path):
        return None
    saved = read_fields(
        path, "report of an evaluation", "Delete it and run again: its parts are there still.", **_SAVED
    )
    _refuse_other_key(spec.out, saved["key"], spec.key)
    return saved | {"skipped_parts": saved["skipped_parts"] + saved["parts"], "parts": 0}


def compute_shards(spec: EvalSpec, actor: type[Answerer], progress: Progress | None) -> tuple[list[str], int]:
    """Compute the shards that are not there; return all shards' names in the pool's order, and how many were there.

    Raises:
        KeyMismatchError: `out` holds shards of another model, pool or setting; lists what differs.
    """
    config = spec.config
    places, left = shards_left(spec, actor)
    there = len(places) - len(left)

    def tell(done: int) -> None:
        tell_parts(actor.FOLDER, done, len(places))
        if progress:
            progress(done, len(places))

    tell(there)
    workers = Workers(actor, {"spec": spec}, config.actors, config.cpus_per_actor, config.gpus_per_actor, growing=True)
    flow = Flow(f"evaluate {actor.FOLDER}", spec.out, actor.FOLDER, inline=spec.here)
    items = [{"part": name, "place": places[name]} for name in left]
    for count, _ in enumerate(run_shards(items, [workers], flow), there + 1):
        tell(count)
    return list(places), there


def shards_left(spec: EvalSpec, actor: type[Answerer]) -> tuple[dict[str, str], list[str]]:
    """Return where all shards lie in the pool, by name in its order, and those to compute. Raises: as `compute_shards`."""
    pool = Pool(spec.config.pool)
    places = {shard.name: pool.place(shard) for shard in pool.shards(spec.config.rows_per_part)}
    again = refused_shards(spec.out, actor.FOLDER, TRY_AGAIN)
    return places, remaining(spec.out, list(places), _sound_shards(spec, actor), again)


def join_shards(spec: EvalSpec, actor: type[Answerer], names: list[str], table: str) -> tuple[pa.Table, pa.Table]:
    """Write the shards as one table, `OUT/TABLE`, in the pool's order; return it, and the refused rows (REFUSED).

    Where they count, refused rows are in the table too: unanswered, at its end.

    Raises:
        MissingRowsError: a row of the pool is in neither.
        InputError: every row is refused.
    """
    folder = join(spec.out, actor.FOLDER)
    rows = pa.concat_tables([read_rows(join(folder, f"{n}.parquet"), actor.SCHEMA) for n in names])
    answered = np.array(rows["sample"].to_pylist(), dtype=np.uint64)
    refused = read_refused(spec.out, actor.FOLDER)
    ids = refused["sample_id"].to_numpy().astype(np.uint64)
    # a shard that was answered anew may have left an older list of refusals behind
    ids, first = np.unique(ids, return_index=True)
    left = ~np.isin(ids, answered)
    ids, refused = ids[left], refused.take(pa.array(np.sort(first[left])))
    missing = np.setdiff1d(Pool(spec.config.pool).ids(), np.concatenate([answered, ids]))
    if len(missing):
        raise MissingRowsError(
            f"{spec.out}: {len(missing)} rows of the test pool have neither answer nor refusal, first "
            f"{missing[0]}. Delete {folder!r} and run again."
        )
    if not rows.num_rows:
        first = f" First: {refused['detail'][0].as_py()}" if refused.num_rows else ""
        raise InputError(
            f"{spec.config.pool}: not one row could be asked; {join(spec.out, 'refused')!r} says why.{first}"
        )
    if actor.REFUSED_COUNT and refused.num_rows:
        records = Pool(spec.config.pool).take(refused["sample_id"].to_numpy())
        rows = pa.concat_tables([rows, actor.unanswered(spec, records)])
    rows = rows.replace_schema_metadata({FOOTER: json.dumps(spec.key)})
    write_rows(join(spec.out, table), rows, actor.SCHEMA)
    return rows, refused


def _sound_shards(spec: EvalSpec, actor: type[Answerer]) -> set[str]:
    """Return the names of the sound shards that are there."""
    done = set()
    for path in list_files(join(spec.out, actor.FOLDER), ".parquet"):
        try:
            footer = (read_rows(path, actor.SCHEMA).schema.metadata or {}).get(FOOTER.encode(), b"{}")
        except DamagedError:
            continue  # as if it were not there: it is written anew, whole
        key = parse_json(footer, f"{path}: its footer")
        _refuse_other_key(path, as_kind(key, dict[str, Any], path, "part of answers", _ANEW), spec.key)
        done.add(path.rsplit("/", 1)[1].removesuffix(".parquet"))
    return done


def _refuse_other_key(path: str, key: dict[str, str], wanted: dict[str, str]) -> None:
    differ = [n for n in sorted(key.keys() | wanted.keys()) if key.get(n) != wanted.get(n)]
    if differ:
        listed = "; ".join(f"{n}: {key.get(n)!r} against {wanted.get(n)!r}" for n in differ)
        raise KeyMismatchError(
            f"{path}: these answers were made otherwise (found against wanted): {listed}. Use another output folder."
        )
