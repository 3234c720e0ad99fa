"""What a job brings to a cluster: the run's file with the recipes that lie beside it, and, if asked, the package itself.

Nothing else travels: data, models and results lie where the cluster sees them. What it cannot see is refused, or told.
"""

import copy
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...store.errors import InputError
from ..runs.config import apply_set, read_run, resolve
from ..runs.filled import with_model

RUN = "run.json"
# fields of a run that name a place; `pool` and `path` are sections elsewhere
_PLACES = {"out", "source", "image_root", "target_image_root", "tokenizer", "path", "pool"}
_ROOT = Path(__file__).parents[2]
# of the package's folder, what no command needs
_BESIDE = {"tests", "benchmarks", "docs", "examples", "runs", "build", "dist"}
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(API|ACCESS|PRIVATE|AUTH|ENCRYPTION)_?KEY|_KEY$", re.I)


@dataclass(frozen=True)
class Parcel:
    """`folder`: the job's working folder. `out`: the run's. `here`: places of the run that are on this machine too."""

    folder: str
    out: str
    here: tuple[str, ...]


def pack(path: str, sets: list[str] | None, folder: str) -> Parcel:
    """Write the run of a file and its `--set`s into an empty folder, with the recipes that are files of their own.

    Raises:
        InputError: as `runs.config.load_run`; or a place in it is relative, which in a job is a folder that goes with it.
    """
    values = read_run(path)
    for entry in sets or []:
        apply_set(values, entry)
    values = with_model(values)
    config = resolve(copy.deepcopy(values), elsewhere=True)
    places = list(_places(values))
    relative = [f"{where}: {value!r}" for where, value in places if _is_relative(where, value)]
    if relative:
        raise InputError(
            f"{'; '.join(relative)}: a relative path of a job is in a folder of the cluster that is removed with it. "
            "Name a URI (s3://…, gs://…), or the full path on storage that all nodes see."
        )
    for number, section in enumerate(_with_recipe_files(values)):
        name = f"recipes/{number}-{os.path.basename(section['recipe'])}"
        os.makedirs(os.path.join(folder, "recipes"), exist_ok=True)
        shutil.copyfile(section["recipe"], os.path.join(folder, name))
        section["recipe"] = name
    with open(os.path.join(folder, RUN), "w") as sink:
        json.dump(values, sink, indent=1)
    here = tuple(f"{where}: {value}" for where, value in places if os.path.isabs(value) and os.path.exists(value))
    return Parcel(folder, config.out, here)


def pack_code(folder: str) -> str:
    """Copy this package into `folder`/vinnow, as a job's workers import it; returns that folder."""
    target = os.path.join(folder, "vinnow")
    hidden = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")

    def left_out(where: str, names: list[str]) -> set[str]:
        return set(hidden(where, names)) | (_BESIDE & set(names) if Path(where) == _ROOT else set())

    shutil.copytree(_ROOT, target, ignore=left_out)
    return target


def variables(names: Iterable[str]) -> dict[str, str]:
    """Return environment variables by name, for a job.

    Raises:
        InputError: one is not set here, or holds a secret by its name: Ray shows a job's variables to whoever asks.
    """
    for name in names:
        if "=" in name:
            raise InputError(f"--env wants the name of a variable alone, not {name.partition('=')[0]}=…; set it here.")
        if _SECRET.search(name):
            raise InputError(
                f"--env {name}: Ray keeps a job's variables in its job API, its dashboard and its logs, where a secret "
                "stays readable. Give it to the nodes instead: a role of theirs, or a secret of Kubernetes."
            )
        if name not in os.environ:
            raise InputError(f"--env {name}: it is not set here. Export it, or leave the option out.")
    return {name: os.environ[name] for name in names}


def _places(values: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield (field, place) of all that a run names."""
    if isinstance(values, dict):
        for name, value in values.items():
            place = f"{where}.{name}" if where else str(name)
            if name in _PLACES and isinstance(value, str):
                yield place, value
            elif not place.endswith(".config"):  # a selector's own fields
                yield from _places(value, place)
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from _places(value, f"{where}.{number}")


def _is_relative(where: str, value: str) -> bool:
    if "://" in value or os.path.isabs(value):
        return False
    # a hub's name of a model is no path, unless a folder here is called so
    return where != "model.path" or os.path.lexists(value) or value.startswith(".") or value.count("/") != 1


def _with_recipe_files(values: Any) -> Iterator[dict[str, Any]]:
    """Yield the training sections whose recipe is a file here, not a name of the package's."""
    if isinstance(values, dict):
        if isinstance(values.get("recipe"), str) and os.path.isfile(values["recipe"]):
            yield values
        values = list(values.values())
    for value in values if isinstance(values, list) else []:
        yield from _with_recipe_files(value)
