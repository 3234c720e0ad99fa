"""What a run's file may leave to its model and its pool: `auto` fields, `model: FOLDER`, questions held out.

All of it is put in before a run is checked, so that what is saved and hashed holds the values themselves.
"""

import copy
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from pydantic import Field

from ...store.config import Config
from ...store.errors import InputError

AUTO = "auto"
# rows that take more tokens are few, and a batch of them fits no card
LONGEST = 8192
# the fields of a section that may be `auto`
_FIELDS = ("template", "max_len", "image_mode")
_ANY: dict[str, Any] = {"template": "own", "max_len": LONGEST, "image_mode": "pad"}
# a tokenizer that knows no limit says 10^30
_NO_LIMIT = 10**9


class HeldOut(Config):
    """Shares of the pool's source that are held out of it, by picture (`pool/share.py`), for what names no source.

    A source that the run names takes a share's place: then nothing is held out for it.
    """

    test: float | None = Field(None, gt=0, lt=1, description="What the fine-tuned models are asked, without `test`.")
    target: float | None = Field(None, gt=0, lt=1, description="What selectors aim at, without `target`.")


def with_model(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with `model: FOLDER` as the section that it stands for."""
    return values | {"model": {"path": values["model"]}} if isinstance(values.get("model"), str) else values


def with_held_out(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values with pools of `held_out`'s shares where a test or target names no source.

    Raises:
        InputError: they leave nothing, or the pool is a share already.
    """
    pool, section = values.get("pool"), values.get("held_out")
    if not isinstance(section, dict) or not isinstance(pool, dict):
        return values
    shares, end, filled = HeldOut.parse(section, "held_out"), 1.0, dict[str, Any]()
    for name in ("test", "target"):
        share, own = getattr(shares, name), values.get(name) or {}
        if share is None or not isinstance(own, dict) or "source" in own:
            continue
        filled[name] = pool | own | {"share": [round(end - share, 9), end]}
        end = round(end - share, 9)
    if not filled:
        return values
    if pool.get("share") is not None:
        raise InputError("held_out and pool.share both say what the pool takes of its source; give one of them.")
    if end <= 0:
        raise InputError(f"held_out: {sorted(filled)} take the whole source, and leave nothing for the pool.")
    return values | filled | {"pool": pool | {"share": [0.0, end]}}


def fitted(values: dict[str, Any], elsewhere: bool = False) -> dict[str, Any]:
    """Return a resolved run's plain values with what goes with its model in place of `auto`.

    `elsewhere`: they are only to be checked; of a model that is not here any values will do.

    Raises:
        InputError: the model is not there, or is a twin, of which nothing is known yet.
    """
    if not elsewhere:
        values = _with_templates(values)
    left_open = [(where, name) for where, section in _sections(values) for name in _FIELDS if section.get(name) == AUTO]
    if not left_open:
        return values
    model = values.get("model")
    folder = model.get("path") if isinstance(model, dict) else None
    if not isinstance(folder, str):
        raise InputError(
            f"{left_open[0][0]}.{left_open[0][1]} is auto, which is asked of model.path, and the run names none."
        )
    if elsewhere and not os.path.isdir(folder):
        return _put(values, lambda: _ANY)
    return _put(values, cache(lambda: defaults(folder)))


def refuse_recipes(values: dict[str, Any]) -> None:
    """Refuse recipes of trainings that name LLaVA's template where the run's model is of another family.

    `values`: a run's plain values, before what recipes say is put in.

    Raises:
        InputError: there is one, and its section names no template of its own.
    """
    from .plain_yaml import read_yaml

    model = values.get("model")
    folder, tuned = model.get("path") if isinstance(model, dict) else None, values.get("finetune")
    common = tuned if isinstance(tuned, dict) and tuned.get("variants") else {}
    for where, section in _sections(values):
        whole = common | section if where.startswith("finetune.") else section
        recipe = whole.get("recipe")
        if section is common or not isinstance(folder, str) or not isinstance(recipe, str) or "template" in whole:
            continue
        template = None if os.path.isfile(recipe) else read_yaml(recipe, "train", f"recipe for {where}").get("template")
        if isinstance(template, str):
            from ...models.encoding import refuse_words

            refuse_words(f"{where}: recipe {recipe!r}", template, folder)


def _with_templates(values: dict[str, Any]) -> dict[str, Any]:
    """Return a run's plain values in which sections that leave the template out name the model's, but for a LLaVA."""
    model = values.get("model")
    folder = model.get("path") if isinstance(model, dict) else None
    whole = {"evaluate": {}} | values
    if not isinstance(folder, str) or all("template" in section for _, section in _sections(whole)):
        return values
    from ...models.encoding import unnamed_template
    from ...pool.inputs import InputConfig

    name = unnamed_template(folder)
    # so it has always been, and what is saved of a run stays as it was written
    if name in (None, InputConfig.model_fields["template"].default):
        return values
    whole = copy.deepcopy(whole)
    for where, section in _sections(whole):
        if where != "finetune" or section.get("variants") is None:
            section.setdefault("template", name)
    return whole


def defaults(folder: str) -> dict[str, Any]:
    """Return template, longest row and image mode that go with a model's folder; no weights are read.

    The longest row is what decoder and tokenizer allow, at most `LONGEST`.

    Raises:
        InputError: no checkpoint there, or it has no usable processor.
    """
    from ...models.encoding import default_template
    from ...models.folders import chain
    from ...models.load import load_processor, read_config

    config = read_config(chain(folder)[-1])
    limits = [getattr(config.get_text_config(), "max_position_embeddings", None)]
    limits.append(getattr(load_processor(folder).tokenizer, "model_max_length", None))
    known = [int(n) for n in limits if isinstance(n, (int, float)) and 0 < n < _NO_LIMIT]
    mode = getattr(config, "image_aspect_ratio", "pad")
    return {
        "template": default_template(folder),
        "max_len": min([LONGEST, *known]),
        "image_mode": mode if mode == "square" else "pad",
    }


def _sections(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the sections that say how rows become a model's input, with their places."""
    tuned = values.get("finetune")
    named: list[tuple[str, Any]] = [(n, values.get(n)) for n in ("proxy", "finetune", "evaluate")]
    if isinstance(tuned, dict) and isinstance(tuned.get("variants"), dict):
        named += [(f"finetune.variants.{n}", v) for n, v in tuned["variants"].items()]
    for name in ("warmup", "features"):
        listed = values.get(name)
        for number, section in enumerate(listed if isinstance(listed, list) else []):
            inner = section.get("train") if name == "warmup" and isinstance(section, dict) else section
            named.append((f"{name}.{number}" + (".train" if name == "warmup" else ""), inner))
    yield from ((where, section) for where, section in named if isinstance(section, dict))


def _put(values: dict[str, Any], of_model: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a copy of the values, `auto` replaced in each section."""
    whole = copy.deepcopy(values)
    for _, section in _sections(whole):
        section.update({name: of_model()[name] for name in _FIELDS if section.get(name) == AUTO})
    return whole
