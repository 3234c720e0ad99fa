"""A run whose `out` is a URI: what cannot lie there is refused by its name, before anything is done."""

import os

from ...actors.kind import kind_of
from ...store.errors import InputError
from ...store.files import is_uri
from .config import RunConfig
from .sections import where_of

# trackers that write into the output's folder, unless a variable names their server
_SERVERS = {"mlflow": "MLFLOW_TRACKING_URI", "wandb": ""}


def refuse_by_uri(config: RunConfig) -> None:
    """Return if all of a run can lie where its `out` says.

    Raises:
        InputError: `out` is a URI, and something in the run needs files that grow or are mapped; names all of it.
    """
    if not is_uri(config.out):
        return
    faults = [
        f"features {feature.name!r} (kind {feature.kind}) read means of targets from mapped files: leave them out"
        for feature in config.features
        if kind_of(feature).aims
    ]
    sections = {f"warmup.{s.name}.train": s.train for s in config.warmup} | {
        where_of(name): section for name, section in config.finetune.by_name().items()
    }
    sections |= {} if config.proxy is None else {"proxy": config.proxy}
    trackers = {where: section.recipe().trackers for where, section in sections.items()}
    for where, named in (trackers | {"sweep": config.sweep.trackers}).items():
        for name in named:
            server = _SERVERS.get(name)
            if server is not None and not (server and os.environ.get(server)):
                way = f"set {server} to a server" if server else "leave it out"
                faults.append(f"{where}.trackers: {name} keeps its files in the output's folder: {way}")
    if faults:
        raise InputError(f"out {config.out!r} is a URI. {'; '.join(faults)}; or name a folder that all nodes see.")
