"""The one flow: parts through a plain class, in this process or on Ray Data; their rows back, errors in our own words.

Features, answers and whatever else works part by part go through here. A worker is a plain class that knows no Ray:
`__init__` loads, `__call__` takes one part as a dict of plain values (`part` is its name) and returns such a dict.
What it writes of a part appears whole, so a repeated task changes nothing, and what is there need not be done again
(`remaining`).
"""

import logging
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store.errors import InputError, VinnowError, one_line, plain_cause
from ..store.machine import refusal
from ..store.meters import export_to
from ..store.traces import leave_trace
from ..store.tries import forget
from .capacity import Share, require
from .ray_worker import DIED, Attempts, ray_worker

# heard on stderr by whoever sets up no logging
log = logging.getLogger("vinnow.pool")

FEWER = "Set fewer actors or loaders, or less for each (cpus_per_actor, gpus_per_actor)."
# what Ray Data puts behind an actor's message: how to make it try again
_ADVICE = re.compile(r"\s*Failed to [^\n]* after \d+/\d+ attempts \(.*\Z", re.S)


@dataclass(frozen=True)
class Workers:
    """`count` workers of a plain class, made with `arguments`, and what each takes of a node.

    `growing`: from one on, as work waits. All at once is the rule: growing from one, the second would load its weights
    while the first works alone (measured on 2 GPUs: 1.33 times the rows of one, over the first minute).
    """

    kind: type[Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    count: int = 1
    cpus: float = 1
    gpus: float = 0
    growing: bool = False


@dataclass(frozen=True)
class Flow:
    """What parts are computed for.

    `name`: as messages say it; `out`: the folder that it writes into; `product`: what it makes, below `out`. `most`: how
    often a part may end its worker's process before the flow ends and names it. `inline`: the same classes in this process,
    one after the other, without Ray.
    """

    name: str
    out: str
    product: str
    most: int = 3
    inline: bool = False


def remaining(where: str, names: Sequence[str], done: Collection[str], again: Collection[str] = ()) -> list[str]:
    """Return the parts to compute, in order: those not done, and those to do again.

    Raises:
        InputError: `where` holds parts of other names; says the first.
    """
    others = sorted(set(done) - set(names))
    if others:
        raise InputError(
            f"{where} holds parts that this run would not write (first {others[0]!r}): rows_per_part was another one. "
            "Give the old rows_per_part, or another output folder."
        )
    left = set(names) - (set(done) - set(again))
    return [name for name in names if name in left]


def run_shards(shards: Sequence[dict[str, Any]], pools: Sequence[Workers], flow: Flow) -> Iterator[dict[str, Any]]:
    """Pass each part through one worker of each pool; yield what the last returns, as it comes. No parts start nothing.

    A part's dict holds `part`, its name, `place`, which rows of what it is (for messages), and what its worker needs.
    A worker whose process dies, or whose node is lost, is replaced and its part done again; how many that were is logged.

    Raises:
        InputError: the cluster can never hold all workers at one time.
        PoisonError: a part ended its worker's process again and again; names it.
        VinnowError: a worker failed: its own error if it is one of ours, else one line; `OUT/failure.txt` has the trace.
    """
    if not shards:
        return
    forget(flow.out, flow.product)
    if flow.inline:
        workers = [pool.kind(**pool.arguments) for pool in pools]
        for shard in shards:
            row = shard
            for worker in workers:
                row = worker(row)
            yield row
        return
    rows, again = _on_ray(shards, pools, flow), 0
    try:
        for row in rows.iter_rows():
            again += bool(row.pop(DIED))
            yield row
    except Exception as error:
        raise in_our_words(error, flow.out) from error
    if again:
        log.warning("%s", begun_again(flow, again))


def begun_again(flow: Flow, count: int) -> str:
    """Return what to say of parts that were done again."""
    parts = "1 part was" if count == 1 else f"{count:,} parts were"
    return (
        f"{flow.name}: {parts} begun again, since the process that computed {'it' if count == 1 else 'them'} was gone: its "
        "node was lost, its memory ran out, or it crashed."
    )


def _on_ray(shards: Sequence[dict[str, Any]], pools: Sequence[Workers], flow: Flow) -> Any:
    import ray.data
    from ray.data import ActorPoolStrategy
    from ray.util import metrics

    from .cluster import quiet

    quiet()
    export_to(metrics)
    counts = [min(pool.count, len(shards)) for pool in pools]
    shares = [Share(count, pool.cpus, pool.gpus) for count, pool in zip(counts, pools, strict=True)]
    require(flow.name, shares, FEWER)
    data = ray.data.from_items(list(shards), override_num_blocks=len(shards))
    for count, pool in zip(counts, pools, strict=True):
        sizes = {"min_size": 1, "max_size": count} if pool.growing else {"size": count}
        data = data.map_batches(
            ray_worker(pool.kind, Attempts(flow.out, flow.product, flow.most)),
            batch_size=1,
            compute=ActorPoolStrategy(**sizes, max_tasks_in_flight_per_actor=2),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            fn_constructor_kwargs=pool.arguments,
        )
    return data


def in_our_words(error: Exception, out: str) -> VinnowError:
    """Return what to raise for an error that came through Ray; its trace goes to `OUT/failure.txt`."""
    kept, cause = leave_trace(out, error), plain_cause(error)
    if cause is None:
        said = refusal(error) or _ADVICE.sub("", one_line(error))
        return VinnowError(f"{said} {kept}")
    cause.args = tuple(_ADVICE.sub("", a) if isinstance(a, str) else a for a in cause.args)
    return cause
