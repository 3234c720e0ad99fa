"""Rows that a feature stage could not compute, with reasons: `ROOT/refused/FEATURE/step=NNNNNNNN/PART.parquet`."""

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa

from .arrays import Array
from .files import exists, join, list_files, open_fs
from .meters import count_refused
from .names import path_part
from .reading import as_kind, parse_json
from .tables import REFUSED, read_rows, write_rows
from .usage import TRY_AGAIN, Usage

FOLDER = "refused"
# in the footer of a target set's list: the task of each row, which the pool knows and the store does not
TASKS = b"vinnow.tasks"
_STEP = re.compile(r"step=(\d+)/([^/]+)\.parquet$")


def write_refused(
    root: str | os.PathLike[str],
    feature: str,
    step: int,
    shard: str,
    rows: list[tuple[int, str, str, str]],
    tasks: Mapping[int, str] | None = None,
) -> None:
    """Write one shard's refusals `(sample_id, source, reason, detail)`; call it before the shard itself appears.

    Without rows, what an earlier try of this shard refused is taken back (its picture has been mended since). `tasks`: of
    a target set's rows, by sample_id.
    """
    feature, shard = path_part(feature, "feature or kind"), path_part(shard, "part")
    path = join(root, FOLDER, feature, f"step={step:08d}", f"{shard}.parquet")
    if not rows:
        if exists(path):
            fs, inner = open_fs(path)
            fs.delete_file(inner)
        return
    ids, sources, reasons, details = zip(*rows)
    table = pa.table(
        {
            "sample_id": pa.array(ids, pa.uint64()),
            "source": list(sources),
            "row": pa.array([-1] * len(rows), pa.int64()),
            "reason": list(reasons),
            "detail": list(details),
        }
    )
    if tasks is not None:
        table = table.replace_schema_metadata({TASKS: json.dumps([tasks[i] for i in ids])})
    write_rows(path, table, REFUSED)
    count_refused(feature, Counter(reasons))


def read_refused(root: str | os.PathLike[str], feature: str) -> pa.Table:
    """Read all refusals of a feature, over all steps (REFUSED; empty when there are none)."""
    tables = [read_rows(p, REFUSED).replace_schema_metadata(None) for p in _lists(root, feature)]
    return pa.concat_tables(tables) if tables else REFUSED.empty_table()


def refused_shards(root: str | os.PathLike[str], feature: str, reasons: Collection[str]) -> set[str]:
    """Return the names of shards that refused a row for one of the reasons, at any step."""
    names = set()
    for path in list_files(join(root, FOLDER, feature), ".parquet", recursive=True):
        if not set(reasons).isdisjoint(read_rows(path, REFUSED)["reason"].to_pylist()):
            names.add(path.rsplit("/", 1)[1].removesuffix(".parquet"))
    return names


def refused_ids(root: str | os.PathLike[str], features: list[str]) -> Array:
    """Return the ids (u64, ascending, unique) that any of the features refused at any step."""
    ids_of_features = [read_refused(root, k)["sample_id"].to_numpy() for k in features]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *ids_of_features]).astype(np.uint64))


def refused_at(root: str | os.PathLike[str], feature: str, steps: Sequence[int]) -> dict[int, dict[int, str]]:
    """Return why rows were refused at each of the steps: step → sample_id → reason."""
    reasons_of_step: dict[int, dict[int, str]] = {step: {} for step in steps}
    for path in _lists(root, feature):
        step = int(_STEP.search(path).group(1))  # type: ignore[union-attr]
        if step in reasons_of_step:
            table = read_rows(path, REFUSED)
            reasons_of_step[step] |= dict(zip(table["sample_id"].to_pylist(), table["reason"].to_pylist(), strict=True))
    return reasons_of_step


def to_try_again(root: str | os.PathLike[str], feature: str, step: int) -> dict[str, list[int]]:
    """Return the rows of each shard that were refused for what may be otherwise by now (`TRY_AGAIN`)."""
    ids_of_part: dict[str, list[int]] = {}
    for path in list_files(join(root, FOLDER, feature, f"step={step:08d}"), ".parquet"):
        table = read_rows(path, REFUSED)
        pairs = zip(table["sample_id"].to_pylist(), table["reason"].to_pylist(), strict=True)
        ids = [sample_id for sample_id, reason in pairs if reason in TRY_AGAIN]
        if ids:
            ids_of_part[path.rsplit("/", 1)[1].removesuffix(".parquet")] = ids
    return ids_of_part


def refused_tasks(root: str | os.PathLike[str], feature: str) -> dict[str, dict[str, int]]:
    """Count a target set's refused rows by task and reason, each row once; "" stands for lists that name no tasks."""
    reason_of: dict[int, tuple[str, str]] = {}
    for path in _lists(root, feature):
        table = read_rows(path, REFUSED)
        said = parse_json((table.schema.metadata or {}).get(TASKS, b"null"), f"{path}: its footer")
        named = as_kind(said, list[str] | None, path, "list of refused rows") or [""] * table.num_rows
        for sample_id, task, reason in zip(table["sample_id"].to_pylist(), named, table["reason"].to_pylist()):
            reason_of.setdefault(sample_id, (task, reason))
    counts = Counter(reason_of.values())
    return {
        task: {r: n for (t, r), n in sorted(counts.items()) if t == task} for task in sorted({t for t, _ in counts})
    }


def usage_of(
    root: str | os.PathLike[str], features: Sequence[str], ids: Array, steps: Sequence[int] | None = None
) -> Usage:
    """Account for a pool's rows (`ids`): used are those that no feature refused at any step, each counted once."""
    reason_of: dict[int, str] = {}
    for feature in features:
        table = read_refused(root, feature) if steps is None else None
        if table is not None:
            reasons_of_steps = [dict(zip(table["sample_id"].to_pylist(), table["reason"].to_pylist(), strict=True))]
        else:
            reasons_of_steps = list(refused_at(root, feature, steps or ()).values())
        for one in reasons_of_steps:
            reason_of = one | reason_of
    refused = np.fromiter(reason_of, np.uint64, len(reason_of))
    mine = [int(i) for i in refused[np.isin(refused, ids)]]
    return Usage(len(ids) - len(mine), dict(Counter(reason_of[i] for i in mine)), listing(root, features))


def listing(root: str | os.PathLike[str], features: Sequence[str]) -> str:
    """Return the folder in which the refusals of these features are listed."""
    return join(root, FOLDER, features[0]) if len(features) == 1 else join(root, FOLDER)


def _lists(root: str | os.PathLike[str], feature: str) -> list[str]:
    return list_files(join(root, FOLDER, feature), ".parquet", recursive=True)
