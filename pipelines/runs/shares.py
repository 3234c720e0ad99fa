"""Shares of a source are looked at before any pool is ingested: one that holds no row is named by its field."""

from ...pool.examine import check_given_root, read_records, settle
from ...store.errors import InputError
from ...store.files import exists, join
from .config import POOLS, RunConfig
from .samples import record_of


def check_shares(run: RunConfig) -> None:
    """See that each share that is not ingested yet holds a row; a source is read as far as its first one.

    Raises:
        InputError: one holds none; names its field, and what to set.
    """
    for name in POOLS:
        config = getattr(run, name)
        if config is None or config.share is None or exists(join(run.out, name, "pool.json")):
            continue
        check_given_root(config)
        config = settle(config)
        rows = 0
        for row, raw in enumerate(read_records(config)):
            if record_of(row, raw, config) is not None:
                break
            rows = row + 1
        else:
            if rows:  # a source without rows is none of the share's doing
                raise InputError(_empty(run, name, rows))


def _empty(run: RunConfig, name: str, rows: int) -> str:
    config, held = getattr(run, name), run.held_out
    begin, end = config.share
    said = f"of {rows:,} rows of {config.source} none lies in its share from {begin:.2%} to {end:.2%}"
    if held is not None and name != "pool" and getattr(held, name, None) is not None:
        where = f"held_out.{name}"
        way = f"set a larger {where}, or name a source of its own ({name}.source)"
    elif held is not None and name == "pool":
        where, way = "pool", "set a smaller held_out.test or held_out.target"
    else:
        where = f"{name}.share"
        way = f"set a wider {where}"
    return f"{where}: {said} (rows are held out by picture, so a small source may have none there): {way}."
