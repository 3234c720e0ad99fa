"""What a plan says of a sweep before it runs: which trials are others again, and how many a search and a limit leave."""

import json

from ....pool.reader import Pool
from ....select.run import picks_file
from ....store.files import exists, join
from ....store.ids import ids_digest
from ....store.tables import PICKS, read_rows
from ..choices import FULL, trials
from ..config import RunConfig
from ..identity import how_trained
from .order import is_base
from .search import most


def foreseen(config: RunConfig) -> dict[str, str]:
    """Return the trials that are another one again, by name, and which: as far as picks are there to tell."""
    pool, rows, first = join(config.out, "pool"), dict[str, str](), dict[str, str]()
    same = {}
    how = {v: json.dumps(how_trained(s.recipe())[0], sort_keys=True) for v, s in config.finetune.by_name().items()}
    for name, (choice, variant) in sorted(trials(config).items(), key=lambda item: not is_base(item[1][0].selector)):
        path = join(config.out, "picks", picks_file(choice.selector, choice.budget, choice.seed))
        if choice.key not in rows:
            if choice.selector == FULL:
                rows[choice.key] = Pool(pool).digest if exists(join(pool, "pool.json")) else FULL
            else:  # without picks nobody knows yet
                picked = exists(path)
                rows[choice.key] = ids_digest(read_rows(path, PICKS)["sample_id"].to_numpy()) if picked else choice.key
        leader = first.setdefault(json.dumps([rows[choice.key], how[variant], choice.seed]), name)
        if leader != name:
            same[name] = leader
    return same


def notes(config: RunConfig, same: dict[str, str]) -> list[str]:
    """Return what a plan says of all trials together."""
    names, sweep = trials(config), config.sweep
    said = [f"{len(names):,} trials, of which {len(same):,} are the same as others and trained once"] if same else []
    if sweep.search != "grid":
        choices = {(c.selector, c.budget) for c, _ in names.values()}
        groups = len({c.budget for c, _ in names.values() if not is_base(c.selector)}) * len(config.finetune.by_name())
        base = sum(is_base(s) for s, _ in choices) * len(config.seeds) * len(config.finetune.by_name())
        halved = len({s for s, _ in choices if not is_base(s)})
        kept = base + groups * most(halved, len(config.seeds), sweep.eta)
        about = "some" if sweep.search == "asha" else "at most"
        said.append(
            f"{sweep.search} (eta {sweep.eta}) trains {about} {kept:,} of {len(names):,} trials, counted here in full"
        )
    if sweep.device_hours is not None:
        said.append(f"no trial begins that does not fit into {sweep.device_hours:g} device-hours")
    return said
