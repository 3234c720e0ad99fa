"""Every config by name: as YAML with a word on each field (`vinnow config`), and as the tables of docs/config.md."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from ..actors import registry as kinds
from ..actors.cluster import RayConfig
from ..actors.config import ActorResources
from ..evaluate.config import EvalConfig, OpenConfig
from ..evaluate.judging.config import JudgeConfig
from ..evaluate.judging.scheme_config import SchemeConfig
from ..evaluate.lmms.config import LmmsConfig
from ..evaluate.remote.config import EndpointConfig, RemoteSampling
from ..evaluate.remote.evaluation import RemoteEvalConfig
from ..models.family.of_llava.build import BuildConfig
from ..models.projections.config import ProjectionConfig
from ..models.specs import AdapterSpec, ConnectorSpec, LoraSpec, MoresSpec, TinyModelConfig
from ..pool.ingest import IngestConfig
from ..select import registry as selectors
from ..select import rule as rules
from ..store.config import Config
from ..store.errors import InputError, suggest
from ..train import recipe
from ..train.config import TrainConfig
from ..train.recipe import TrainRecipe, ValidationSpec
from .blanks import BLANK
from .generate.config import GenerateConfig
from .runs.config import ModelSection, PickSection, RunConfig, SelectorSection, SweepSection
from .runs.filled import HeldOut
from .runs.placing import Devices
from .runs.plain_yaml import read_yaml
from .runs.rates import PlanConfig
from .runs.sections import StageSection
from .serve.config import ServeConfig

_SECTIONS: dict[str, type[Config]] = {
    **{"run": RunConfig, "ray": RayConfig, "ingest": IngestConfig, "model": ModelSection, "twin": TinyModelConfig},
    **{"warmup": StageSection, "train": TrainConfig, "validation": ValidationSpec, "lora": LoraSpec},
    **{"peft": AdapterSpec, "mores": MoresSpec, "actors": ActorResources, "projection": ProjectionConfig},
    **{
        "selector": SelectorSection,
        "pick": PickSection,
        "evaluate": EvalConfig,
        "sweep": SweepSection,
        "held_out": HeldOut,
        "plan": PlanConfig,
    },
    **{"build": BuildConfig, "connector": ConnectorSpec, "endpoint": EndpointConfig, "sampling": RemoteSampling},
    **{"evaluate-endpoint": RemoteEvalConfig, "judge": JudgeConfig, "open": OpenConfig},
    **{"judge-scheme": SchemeConfig, "lmms-eval": LmmsConfig},
    "generate": GenerateConfig,
    "serve": ServeConfig,
}
# sections of a run that hold what has a page under another name; those of `_LISTS` hold several of it
_ALSO: dict[str, type[Config]] = {
    **dict.fromkeys(("pool", "captions", "target", "test"), IngestConfig),
    **{"proxy": TrainRecipe, "finetune": TrainRecipe, "selectors": SelectorSection, "devices": Devices},
}
_LISTS = ("warmup", "features", "selectors")
_RECIPES = Path(recipe.__file__).with_name("recipes")


def classes() -> dict[str, type[Config]]:
    """Return the configs by name: a run's and its sections', each kind's of features, each selector's and pick rule's."""
    own = {name: kinds.find(name).Config for name in kinds.names()}
    own |= {name: type(selectors.make(name).config) for name in selectors.names()}
    return _SECTIONS | own | {name: type(rules.make_rule(name).config) for name in rules.names()}


def names() -> list[str]:
    """Return what `vinnow config` knows: configs, a run's sections, and the recipes of trainings."""
    return sorted([*classes(), *_ALSO, "features", *(p.stem for p in _RECIPES.glob("*.yaml"))])


def config_of(name: str) -> Config:
    """Return a config with its defaults, and FILL IN or an example where there is none; or a recipe.

    Raises:
        InputError: there is none of this name; names the nearest one.
    """
    known = classes() | _ALSO
    if name in known:
        return known[name].parse(_examples(known[name]), name)
    if name not in names():
        raise InputError(f"there is no config {name!r}{suggest(name, names())}")
    return TrainRecipe.parse(read_yaml(name, "train"), name)


def printed(name: str) -> str:
    """Return what `vinnow config NAME` prints: commented YAML; of a run's section that is a list, its items.

    Raises:
        InputError: as `config_of`.
    """
    if name not in _LISTS:
        return commented(config_of(name))
    items = [config_of(kind) for kind in kinds.names()] if name == "features" else [config_of(name)]
    return "".join(_item(commented(item)) for item in items)


def _item(text: str) -> str:
    """Return YAML of a mapping as an item of a list."""
    return "-\n" + textwrap.indent(text, "  ")


def commented(config: Config) -> str:
    """Return a config as YAML, a comment above each field."""
    return "\n".join(_lines(config, 0)) + "\n"


def page() -> str:
    """Return docs/config.md."""
    blocks = [_HEAD]
    for name, config in classes().items():
        rows = ["| field | values | default | what it is |", "|---|---|---|---|"]
        rows += [_row(config_of(name), n, f) for n, f in config.model_fields.items()]
        about = " ".join((config.__doc__ or "").split("\n\n")[0].split())
        blocks.append(f"## {name}\n{about}\n\n" + ("\n".join(rows) if config.model_fields else "No fields."))
    return "\n\n".join(blocks) + "\n"


_HEAD = """# Every field of every config
Made by `python benchmarks/_config_page.py` from the fields themselves. `vinnow config NAME` prints one of these, or a
recipe of `train/recipes/`, as YAML with the same words; `vinnow config run` a whole run. In a run, `pool`, `captions`,
`target` and `test` are an [ingest](#ingest); `proxy`, `finetune` and `warmup[].train` are a [train](#train) without
`model`, `pool`, `picks` and `seed`, which the run fills in, and may name a `recipe`; `evaluate` is an
[evaluate](#evaluate) without `model`, `pool` and `run`; `features` lists the kinds' configs, `selectors[].config` is a
selector's. `vinnow config` prints `features`, `selectors` and `warmup` as the lists that they are in a run.
`--gpus auto` fills `use_gpu`, `workers`, `precision` and the like only where they are left out."""


def _examples(config: type[Config]) -> dict[str, Any]:
    return {n: _example(f) for n, f in config.model_fields.items() if f.is_required() or f.examples}


def _example(field: FieldInfo) -> Any:
    if field.examples:
        return field.examples[0]
    inner = field.annotation
    if isinstance(inner, type) and issubclass(inner, Config):
        return _examples(inner)
    return f"{BLANK}: {field.description}"


def _lines(config: Config, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(config).model_fields.items():
        value, values = getattr(config, name), _choices(field.annotation)
        about = (field.description or "") + (f" Values: {', '.join(values)}." if values else "")
        yield from (f"{indent}# {line}" for line in textwrap.wrap(about, 116 - len(indent)))
        if isinstance(value, Config):
            inside = list(_lines(value, depth + 1))
            yield f"{indent}{name}:" + ("" if inside else " {}")
            yield from inside
        else:
            yield f"{indent}{name}: {_plain(config, name)}"


def _plain(config: Config, name: str) -> str:
    """Return a field's value on one line of YAML."""
    value = getattr(config, name)
    plain = [v.model_dump(mode="json") if isinstance(v, Config) else v for v in value] if _many(value) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10**6, allow_unicode=True).removesuffix("...\n").strip()


def _many(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _choices(annotation: Any) -> list[str]:
    """Return the words that a field may hold, where it holds one of a few."""
    if get_origin(annotation) is Literal:
        return [str(v) for v in get_args(annotation)] if len(get_args(annotation)) > 1 else []
    return [word for inner in get_args(annotation) for word in _choices(inner)]


def _row(config: Config, name: str, field: FieldInfo) -> str:
    value = getattr(config, name)
    if field.is_required():
        default = "(required)"
    elif isinstance(value, Config):
        default = "its own"
    else:
        default = f"`{_plain(config, name)}`"
    cells = (f"`{name}`", ", ".join(_choices(field.annotation)), default, field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
