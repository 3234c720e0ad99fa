"""The one flow: items through pools of actors on Ray Data, their rows back, and their errors in our own words.

Features, answers and whatever else works part by part go through here. The unit of work is an item (a part's name); what an
actor writes of it appears whole, so a repeated task changes nothing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store.errors import VinnowError, one_line, plain_cause
from ..store.machine import refusal
from ..store.traces import leave_trace
from .capacity import Share, require

_FEWER = "Set fewer actors or loaders, or less for each (cpus_per_actor, gpus_per_actor)."
# what Ray Data puts behind an actor's message: how to make it try again
_ADVICE = re.compile(r"\s*Failed to [^\n]* after \d+/\d+ attempts \(.*\Z", re.S)


@dataclass(frozen=True)
class Stage:
    """One pool of `actors` of a plain class, made with `arguments`; `growing`: from one actor on, as work waits."""

    actor: type[Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    actors: int = 1
    cpus: float = 1
    gpus: float = 0
    growing: bool = False


def stream(items: Sequence[dict[str, Any]], stages: Sequence[Stage], out: str, what: str) -> Iterator[dict[str, Any]]:
    """Yield the rows that the last stage returns, as they come; nothing for no items.

    `what`: the stage's name, for what is said of it.

    Raises:
        InputError: the cluster can never hold all actors at one time.
        VinnowError: an actor failed: its own error if it is one of ours, else one line; `OUT/failure.txt` has the trace.
    """
    if not items:
        return
    import ray.data
    from ray.data import ActorPoolStrategy

    from .cluster import quiet

    quiet()
    require(what, [Share(min(s.actors, len(items)), s.cpus, s.gpus) for s in stages], _FEWER)
    data = ray.data.from_items(list(items), override_num_blocks=len(items))
    for stage in stages:
        count = min(stage.actors, len(items))
        # all at once: growing from one, the second actor would load its weights while the first works alone (measured on
        # 2 GPUs: 1.33 times the rows of one, over the first minute)
        sizes = {"min_size": 1, "max_size": count} if stage.growing else {"size": count}
        data = data.map_batches(
            stage.actor,
            batch_size=1,
            compute=ActorPoolStrategy(**sizes, max_tasks_in_flight_per_actor=2),
            num_cpus=stage.cpus,
            num_gpus=stage.gpus,
            fn_constructor_kwargs=stage.arguments,
        )
    try:
        yield from data.iter_rows()
    except Exception as error:
        raise in_our_words(error, out) from error


def in_our_words(error: Exception, out: str) -> VinnowError:
    """Return what to raise for an error that came through Ray; its trace goes to `OUT/failure.txt`."""
    kept, cause = leave_trace(out, error), plain_cause(error)
    if cause is None:
        said = refusal(error) or _ADVICE.sub("", one_line(error))
        return VinnowError(f"{said} {kept}")
    cause.args = tuple(_ADVICE.sub("", a) if isinstance(a, str) else a for a in cause.args)
    return cause
